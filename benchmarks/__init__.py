"""Programs that print the figures in the documentation. Run each with ``python -m benchmarks.NAME``."""
