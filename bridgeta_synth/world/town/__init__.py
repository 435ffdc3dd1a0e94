"""Synthetic towns: blocks, buildings, car parks and street furniture around a road network."""
