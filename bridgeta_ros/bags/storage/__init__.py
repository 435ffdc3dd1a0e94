"""How bags lie on disk: data files, metadata.yaml and message definitions."""
