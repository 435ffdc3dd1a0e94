"""Where rays meet the ground and solids."""
