"""The `bridgeta` commands on what runs on a vehicle: bring it from elsewhere, measure it, and make it smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridgeta_core.cli.common import Root, Source, Version, Weights, console, find_table_version, say


def bench(
    weights: Weights = "tiny",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    repeats: Annotated[int, typer.Option(help="Rounds; in each, every back end runs once.", min=1)] = 40,
) -> None:
    """Measure weights on this machine by every back end that is installed, stage by stage, in one paired run."""
    from bridgeta_core.deploy.bench import measure_weights

    console.print(measure_weights(weights, device, repeats).build_table())


def calibrate(
    weights: Weights,
    root: Root,
    out: Annotated[Path, typer.Argument(help="Weights file to write, .safetensors.")],
    version: Version = None,
    scenes: Annotated[str, typer.Option(help="all, an official split (val), or scene names with commas.")] = "all",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    source: Source = "nuscenes",
) -> None:
    """Write a copy of weights whose best threshold is 0.5 for every class. Take data that they are not scored on.

    The bias of each class's logit moves; the order of probabilities and the cost stay.
    """
    from bridgeta_core.evaluation.calibrate import calibrate_weights

    version = find_table_version(root, version, source)
    result = calibrate_weights(weights, root, version, out, scenes=scenes, source=source, device=device)
    console.print(result.build_table())
    say(f"Wrote {out}. Its int8 graphs, if it is to have any: bridgeta quantise {out} ROOT OUT")


def import_weights(
    file: Annotated[Path, typer.Argument(help="Checkpoint of BEVFusion or of a Swin backbone, .pth.")],
    out: Annotated[Path, typer.Argument(help="Weights file to write, .safetensors; a folder for a backbone.")],
    role: Annotated[
        str,
        typer.Option(
            "--as",
            help="student (a camera-only network), teacher (one with LiDAR), or backbone (for training).",
        ),
    ] = "student",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was imported to OUT before.")] = False,
) -> None:
    """Import published weights: BEVFusion's of map segmentation, or a backbone. No code in them is run."""
    from bridgeta_core.bevfusion.importing import import_checkpoint

    network = import_checkpoint(file, out, role, overwrite)
    use = {
        "student": f"Try it: bridgeta replay BAG OUT --weights {out}",
        "teacher": f"Distil from it: bridgeta train distill CONFIGURATION distill.teacher={out}",
        "backbone": f"Train from it: model.backbone.pretrained={out}",
    }[role]
    say(f"Wrote {out}, a {network}. {use}")


def push(
    weights: Weights,
    place: Annotated[str, typer.Argument(help="Repository of a hub, hf://owner/name or hf://owner/name@branch.")],
    licence: Annotated[
        str | None, typer.Option(help="Licence for the card, by the hub's name of it, such as apache-2.0.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="If the repository is new, show it to nobody else.")
    ] = False,
) -> None:
    """Push weights to a hub, with a card from their own description. Log in before: hf auth login."""
    from bridgeta_core.deploy.export.push import push_weights

    say(f"Pushed to {push_weights(weights, place, licence=licence, private=private)}")


def quantise(
    weights: Weights,
    root: Root,
    out: Annotated[Path, typer.Argument(help="Weights file to write, .safetensors.")],
    version: Version = None,
    scenes: Annotated[str, typer.Option(help="all, an official split (val), or scene names with commas.")] = "all",
    samples: Annotated[int, typer.Option(help="Samples that the ranges are taken from.", min=1)] = 48,
    source: Source = "nuscenes",
) -> None:
    """Write a copy of weights that also holds int8 graphs, for --precision int8. Take data that it is not scored on."""
    from bridgeta_core.evaluation.quantise import quantise_weights

    version = find_table_version(root, version, source)
    count = quantise_weights(weights, root, version, out, scenes=scenes, samples=samples, source=source)
    say(f"Wrote {out}, quantised on {count} samples. Compare: bridgeta eval {out} ROOT --backend auto --precision int8")
