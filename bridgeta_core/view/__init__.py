"""Pictures of samples and labels."""
