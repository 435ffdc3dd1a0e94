"""Rasterise the shapes of a map into BEV labels."""
