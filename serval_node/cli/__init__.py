"""The `serval` command line."""
