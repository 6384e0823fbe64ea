"""A bounded exhaustive check of the migration exchange on the real state machines: `make model-check`."""
