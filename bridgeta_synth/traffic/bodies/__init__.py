"""The bodies of actors, built from solids."""
