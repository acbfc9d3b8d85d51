"""A minimal Django site with users, groups and sessions, for the benchmarks."""
