"""Read the tables of a nuScenes root."""
