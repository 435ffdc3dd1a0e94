"""The plan of a town: streets, blocks, paint and what stands up, and the lanes along which one can drive."""
