"""LiDAR points to features: pillars, or voxels and convolutions over the few of them that hold points."""
