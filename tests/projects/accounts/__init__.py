"""A Django application with user models of its own."""
