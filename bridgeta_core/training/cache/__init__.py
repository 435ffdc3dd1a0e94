"""A cache on disk of decoded frames and of a teacher's taps."""
