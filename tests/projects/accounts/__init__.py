"""A Django application with a user model of its own: named by an address, without groups."""
