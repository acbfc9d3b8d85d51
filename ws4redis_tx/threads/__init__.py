"""The link between blocking threads and the reactor: publishing, lookups that block, and requests.

It knows which reactor a process has, and the settings. It loads Redis on first use, and must not
know what Django publishes or looks up.
"""
