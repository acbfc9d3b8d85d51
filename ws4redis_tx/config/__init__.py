"""The settings: one table of them, the server's configuration, and what Django's settings say.

Knows what each value means and which values work. It must not know who uses them.
"""
