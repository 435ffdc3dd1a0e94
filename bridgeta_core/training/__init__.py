"""Training on Lightning: one folder per run with its settings, logs, checkpoints and weights."""
