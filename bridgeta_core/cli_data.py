"""`bridgeta data`: what is in a nuScenes-format root, before anything is trained on it."""

from __future__ import annotations

import typer

data_app = typer.Typer(no_args_is_help=True, help="Check and index a dataset.")
