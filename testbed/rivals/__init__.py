"""What Serval is measured against, beside the transports of `testbed.traffic`: pieces to be put into a network."""
