"""What ships: the configurations with all their settings, and the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from bridgeta_core.cli.common import Configuration, Overrides, console, say

if TYPE_CHECKING:
    from bridgeta_core.deploy.weights import WeightsInfo


def config(
    configuration: Configuration,
    overrides: Overrides = None,
    diff: Annotated[
        str | None, typer.Option(help="Another configuration: list only the settings in which they differ.")
    ] = None,
) -> None:
    """Print all settings of a configuration with their meanings and ranges, as YAML to edit and to train with."""
    from bridgeta_core.config import experiment as configs
    from bridgeta_core.utils.settings import list_differences, write_commented

    experiment = configs.load(configs.Experiment, configuration, overrides or [])
    if diff is None:
        # Not by the console: of a comment that it breaks in two, the second line would be none.
        print(write_commented(experiment), end="")
        return
    differences = list_differences(experiment, configs.load(configs.Experiment, diff))
    if not differences:
        say(f"{configuration} and {diff} have the same settings")
        return
    table = Table(Column("setting", no_wrap=True), *(Column(Path(name).stem) for name in (configuration, diff)))
    for name, value, there in differences:
        table.add_row(name, str(value), str(there))
    console.print(table)


def weights() -> None:
    """List the weights that ship, with their mean IoU on validation data and on towns that they have not seen."""
    from bridgeta_core.deploy.scores import BASELINE, STUDENT, ShippedScores
    from bridgeta_core.deploy.teacher_weights import read_any_info
    from bridgeta_core.deploy.weights import SHIPPED
    from bridgeta_core.evaluation.metric import format_percent

    scores = ShippedScores.load()
    shown = {STUDENT: scores.student, BASELINE: scores.baseline}
    figures = [Column(name, justify="right") for name in ("MB", "samples", "validation", "unseen")]
    table = Table(Column("name", no_wrap=True), "what", Column("images", no_wrap=True), *figures)
    for name, path in SHIPPED.items():
        info = read_any_info(path)
        origin, image = info.provenance, info.model.image
        table.add_row(
            name,
            _describe(info),
            f"{len(info.cameras)} x {image.width}x{image.height}",
            f"{path.stat().st_size / 1e6:.1f}",
            f"{origin['train_samples']:,}",
            format_percent(origin["validation"]["miou"]),
            format_percent(shown[name]) if name in shown else "",
        )
    console.print(table)
    say(f"Samples are those of training, mIoU in %. Unseen: {scores.samples} samples of {scores.data}.")
    say("All are under the Apache License 2.0. docs/weights.md has the commands that made them, and IoU per class.")


def _describe(info: WeightsInfo) -> str:
    """Say what a network is: a teacher, or a student and how it was trained."""
    from bridgeta_core.deploy.teacher_weights import TeacherInfo

    if isinstance(info, TeacherInfo):
        return "teacher of LiDAR and cameras" if info.teacher.sensors == "fusion" else "teacher of LiDAR"
    taught = info.provenance.get("distill")
    return f"student, distilled ({taught['method']})" if taught else "student, labels alone"
