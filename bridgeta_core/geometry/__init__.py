"""Grids, transforms, cameras and images."""
