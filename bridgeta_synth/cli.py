"""The `synth` command, which bridgeta_ros.commands adds to `bridgeta`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridgeta_core.cli.common import console, say


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    scenes: Annotated[
        int, typer.Option(help="Number of scenes; they alternate between the towns.", min=1, max=9999)
    ] = 1,
    seed: Annotated[int, typer.Option(help="The same seed and options give the same bytes.", min=0)] = 0,
    split: Annotated[
        str, typer.Option(help="train, val or test: each has towns of its own, built and coloured differently.")
    ] = "train",
    duration: Annotated[
        float, typer.Option(help="Seconds from the first to the last keyframe of a scene.", min=0, max=60)
    ] = 5.0,
    keyframe_gap: Annotated[
        float,
        typer.Option(help="Seconds from one keyframe to the next, in steps of 0.5; nuScenes has 0.5.", min=0.5, max=60),
    ] = 0.5,
    spread: Annotated[
        bool, typer.Option("--spread", help="Spread the keyframes evenly over the towns instead of at random.")
    ] = False,
    version: Annotated[str, typer.Option(help="Name of the table folder.")] = "v1.0-trainval",
    keyframes_only: Annotated[
        bool, typer.Option("--keyframes-only", help="Leave out the sweeps between the keyframes.")
    ] = False,
    image_scale: Annotated[float, typer.Option(help="Image size as a share of 1600x900.", min=0.02, max=1)] = 1.0,
    lidar: Annotated[bool, typer.Option("--lidar/--no-lidar", help="Write LIDAR_TOP.")] = True,
    relief: Annotated[float, typer.Option(help="Hilliness: 1 has slopes of up to 6 %, 0 is flat.", min=0, max=1)] = 1.0,
    weather: Annotated[
        str,
        typer.Option(help="mixed (about as in nuScenes), or one for all scenes: clear, overcast, dusk, night, rain."),
    ] = "mixed",
    maps: Annotated[
        Path | None,
        typer.Option(
            help="Folder with maps/expansion of the real nuScenes: drive through its cities instead of synthetic towns."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to render: cpu or cuda.")] = "cpu",
    jobs: Annotated[
        int | None,
        typer.Option(help="How many files are made at a time; as many as there are cores by default.", min=1),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace an earlier synthetic dataset, and what an interrupted run with other options left.",
        ),
    ] = False,
) -> None:
    """Write a synthetic dataset in the nuScenes schema: towns with maps, drives, camera images and LiDAR.

    Until it is whole it lies in OUT.partial. After an interruption the same command goes on with what is there.
    """
    from bridgeta_synth.dataset.writer import write_dataset
    from bridgeta_synth.settings import SynthSettings

    settings = SynthSettings(
        scenes=scenes,
        seed=seed,
        split=split,
        duration=duration,
        keyframe_gap=keyframe_gap,
        spread=spread,
        version=version,
        keyframes_only=keyframes_only,
        image_scale=image_scale,
        lidar=lidar,
        relief=relief,
        weather=weather,
        maps=None if maps is None else str(maps),
    )
    sheet = write_dataset(out, settings, device=device, overwrite=overwrite, jobs=jobs)
    console.print(sheet.page())
    say(f"Wrote {out}")
