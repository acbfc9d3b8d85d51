"""The least Django site with a websocket by Channels that everyone in a group hears."""
