"""The chat demo's app: templates, static files, and the command that prepares the database."""
