"""A Django application with its own user model: users have an address and no groups."""
