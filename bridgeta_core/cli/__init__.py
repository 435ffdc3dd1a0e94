"""The commands on datasets, training and weights."""
