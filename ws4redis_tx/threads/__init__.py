"""The link between blocking threads and the reactor: publishing, and lookups that block.

It knows which reactor a process has. It loads Redis on first use, and must not know Django.
"""
