"""Weights and the runtime: all that a vehicle needs of the core."""
