"""Redis: its connections, what is asked of it, and what it sends.

The one place that knows txredisapi (``protocol``). It must not know websockets, sessions or Django.
"""
