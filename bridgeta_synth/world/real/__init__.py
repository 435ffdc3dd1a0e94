"""Towns made of real map expansions of nuScenes."""
