"""How ground, solids and sky look."""
