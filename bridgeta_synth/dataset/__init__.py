"""The world as a data set: tables and files of a nuScenes root, or frames straight as tensors."""
