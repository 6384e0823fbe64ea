"""servald: the node of one host, its launcher, and what they are made of."""
