"""Attacks on the wire, crafted with this project's own codecs, for tests and for trying by hand (docs/defence.md)."""
