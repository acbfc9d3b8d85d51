"""The programs with which our server is compared."""
