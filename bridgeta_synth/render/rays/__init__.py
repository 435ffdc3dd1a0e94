"""Find where rays hit the ground and solids."""
