"""What all `bridgeta` commands share: how they fail, how they print, and common arguments."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from bridgeta_core.utils.errors import BridgeTAError


class Commands(TyperGroup):
    """Commands whose failures are one message on stderr and an exit code, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        # Handle a service manager's SIGTERM like Ctrl-C, so that no partial outputs are left behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except BridgeTAError as error:
            message, code = str(error), error.exit_code
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in {"bridgeta_core", "bridgeta_synth", "bridgeta_ros"}:
                raise
            message, code = f"this command needs {error.name}. Install the rest: pip install '.[train]'", 1
        except KeyboardInterrupt:
            message, code = "interrupted; nothing half-written was left", 1
        print(f"bridgeta: {message}", file=sys.stderr)
        raise typer.Exit(code)


console = Console()


def say(text: str) -> None:
    """Print a line without markup or line breaks, so that paths can be copied."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def find_table_version(root: Path, version: str | None, source: str = "nuscenes") -> str:
    """Return `version`, or the only table folder of a nuScenes root; other sources need none."""
    if version is not None or source != "nuscenes":
        return version or ""
    from bridgeta_core.data.nuscenes.versions import explain_missing_tables, list_versions

    root = root.expanduser().resolve()
    versions = list_versions(root)
    if not versions:
        raise explain_missing_tables(root, None)
    if len(versions) > 1:
        what = f"has the table folders {', '.join(versions)}"
        raise BridgeTAError(what, where=root, fix="Choose one with --version", exit_code=2)
    return versions[0]


Version = Annotated[str | None, typer.Option(help="Folder of the tables, such as v1.0-mini; found when there is one.")]
Root = Annotated[Path, typer.Argument(help="nuScenes-format folder (with v1.0-*, maps, samples).")]
Source = Annotated[str, typer.Option(help="What reads the folder: nuscenes, or module:Class (docs/own_data.md).")]
