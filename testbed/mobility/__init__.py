"""Hosts that move: several interfaces with routing by source address, other networks, processes that stand still."""
