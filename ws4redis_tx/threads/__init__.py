"""Between threads that wait and the reactor: publishing from any thread, look-ups that block.

Knows which reactor a process has. It loads Redis only when it is first used, and knows no Django.
"""
