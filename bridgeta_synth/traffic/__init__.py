"""What happens in a scene: who drives, walks and stands where at what time."""
