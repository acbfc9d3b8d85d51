"""A site that is developed: ``benchmarks.runserver`` and a test copy it, and edit the copy."""
