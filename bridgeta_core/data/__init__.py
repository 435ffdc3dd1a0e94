"""Datasets, map labels, and the frames that the networks are trained on."""
