"""Keep decoded frames and teacher features on disk."""
