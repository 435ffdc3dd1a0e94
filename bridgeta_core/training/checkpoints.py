"""Checkpoint files that are either whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from bridgeta_core.utils.files import replace_when_done


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the target and renames; reads tensors and plain values, nothing that could run.

    Lightning's own writes into the system's temporary folder and moves the file from there, which between two
    filesystems is a copy that can break off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint. Raises BridgeTAError when the disk is full."""
        with replace_when_done(Path(path)) as temporary, open(temporary, "wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # What the system said is hidden behind a complaint of torch's archive, which is not closed properly.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint."""
        return dict(torch.load(path, map_location=map_location, weights_only=True))
