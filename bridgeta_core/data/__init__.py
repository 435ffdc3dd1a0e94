"""nuScenes-format data: the index of samples, map masks, and the frames that the networks are trained on."""
