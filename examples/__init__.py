"""Examples of users' code. A package, so that ``trial`` can run ``examples/trial_tests``."""
