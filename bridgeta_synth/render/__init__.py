"""What cameras and LiDAR see of a scene: rays, surfaces, light."""
