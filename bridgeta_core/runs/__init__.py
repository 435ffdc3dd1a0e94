"""What a training run leaves behind: its folder, its record and its log."""
