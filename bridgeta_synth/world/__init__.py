"""The world: ground, light, materials, solids, and the towns built from them."""
