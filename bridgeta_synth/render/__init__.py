"""Render what cameras and LiDAR see of a scene: rays, surfaces, light."""
