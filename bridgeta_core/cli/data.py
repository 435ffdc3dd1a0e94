"""The `bridgeta data` commands: check and index a nuScenes-format root before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridgeta_core.cli.common import Root, Source, Version, console, find_table_version, say, show
from bridgeta_core.utils.outputs import replace_when_done

data_app = typer.Typer(no_args_is_help=True, help="Check and index a dataset.")


@data_app.command(epilog=show("bridgeta data check /data/nuscenes --deep --list bad_files.txt"))
def check(
    root: Root,
    version: Annotated[str | None, typer.Option(help="Folder of the tables; found when there is one.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image and read every LiDAR file.")] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Number of processes for --deep; the number of cores by default.", min=1)
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", help="Write the paths of all missing, empty and damaged files, one per line."),
    ] = None,
    source: Source = "nuscenes",
) -> None:
    """Check what of a dataset is missing or damaged, and say what to do; exit code 1 when there is a problem."""
    from bridgeta_core.data.check.run import check as check_root

    report = check_root(root, version, source=source, deep=deep, jobs=jobs)
    console.print(report.render())
    if list_file is not None:
        with replace_when_done(list_file) as temporary:
            temporary.write_text("".join(f"{path}\n" for path in report.bad_files))
        say(f"Wrote {list_file}: {len(report.bad_files)} paths")
    say(report.verdict)
    raise typer.Exit(report.exit_code)


@data_app.command(epilog=show("bridgeta data index /data/nuscenes --version v1.0-mini"))
def index(root: Root, version: Version = None) -> None:
    """Index a nuScenes-format dataset, unless that is done, and list what is in it; the first use does it too."""
    from bridgeta_core.data.nuscenes.overview import index_overview

    console.print(index_overview(root, find_table_version(root, version)))
