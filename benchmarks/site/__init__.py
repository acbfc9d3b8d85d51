"""A Django site as small as one with users, groups and sessions can be; for the benchmarks."""
