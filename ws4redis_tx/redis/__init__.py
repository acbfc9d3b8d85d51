"""Redis: its two connections, what is asked of it, and what it sends.

It knows channels and listeners. It must not know txredisapi, websockets, sessions or Django.
"""
