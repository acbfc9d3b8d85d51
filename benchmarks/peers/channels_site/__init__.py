"""A minimal Django site in which Channels sends messages to a group of websockets."""
