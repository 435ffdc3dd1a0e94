"""The traffic of a scene: who drives, walks and stands where, and when."""
