"""What runs inside a guest: it is copied into the image as the package `guest`, beside serval_node and nothing else."""
