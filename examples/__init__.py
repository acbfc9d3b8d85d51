"""What users write. A package, so that
``python -m twisted.trial examples/trial_tests`` finds it."""
