"""Paint how ground, solids and sky look."""
