"""Turn the world into data: a nuScenes root of tables and files, or frames straight as tensors."""
