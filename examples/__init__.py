"""What users write. A package, so that ``trial examples/trial_tests`` finds it."""
