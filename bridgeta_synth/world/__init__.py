"""What the world is made of: ground, light, materials, solids, and the towns built from them."""
