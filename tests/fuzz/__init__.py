"""Longer runs of the parsers and of a whole stack with damaged input (`make fuzz`; docs/defence.md)."""
