"""What users write; a package, for ``python -m twisted.trial examples/trial_tests``."""
