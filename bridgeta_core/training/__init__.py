"""Training on Lightning: one folder per run that holds the settings, the logs, the checkpoints and the weights."""

from bridgeta_core.training.train import train_distill, train_student, train_teacher

__all__ = ["train_distill", "train_student", "train_teacher"]
