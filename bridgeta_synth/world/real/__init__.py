"""Towns built from real nuScenes map expansions."""
