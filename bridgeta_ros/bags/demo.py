"""The whole way on a synthetic drive, from images to a report: what `make demo` runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter

from rich.console import Console

from bridgeta_core.deploy.scores import STUDENT, ShippedScores
from bridgeta_core.utils.files import hold_lock
from bridgeta_core.view.sample import write_sample_picture
from bridgeta_ros.bags.convert import SceneBagSettings, write_scene_bag
from bridgeta_ros.bags.replay import ReplaySettings, replay
from bridgeta_ros.bags.report import write_report
from bridgeta_synth.dataset.writer import SynthSettings, write_dataset

# By day and over a junction with crossings, so that there is something to see; its towns are none of the training's.
DRIVE = SynthSettings(scenes=1, split="test", duration=4.0, version="v1.0-mini", image_scale=0.4, weather="clear")

_WHAT_TO_LOOK_AT = (
    "Compare prediction and ground truth, side by side in picture and report. Near the vehicle the road should lie "
    "where it lies, with walkways along it and crossings across. Beyond some 30 m images have few pixels of ground, "
    "and behind buildings none: there the network guesses: classes are pale, or missing."
)


def run_demo(out: Path, seed: int, console: Console) -> None:
    """Write a drive, its bag, the replay, a picture and a report below `out`; replace those of an earlier demo.

    Raises BridgeTAError when another demo is written there.
    """
    start = perf_counter()
    root, source, replayed = out / "nuscenes", out / "drive", out / "bev"
    picture, page = out / "sample.png", out / "report.html"
    with hold_lock(out / ".lock", wait=False, busy="another demo is written here"):
        write_dataset(root, replace(DRIVE, seed=seed), overwrite=True)
        write_scene_bag(root, DRIVE.version, "scene-0001", source, SceneBagSettings(overwrite=True))
        summary = replay(source, replayed, STUDENT, ReplaySettings(overwrite=True))
        write_sample_picture(root, DRIVE.version, "2", picture, weights=STUDENT)
        write_report(replayed, source, page)
    summary.print(console)
    console.print(f"\n{ShippedScores.load().describe_gain()}")
    console.print(f"\n{_WHAT_TO_LOOK_AT}")
    console.print(f"\nDone in {perf_counter() - start:.0f} s. Open the report in a browser, play the bags in ROS 2:")
    for what, path in (("drive", source), ("grids", replayed), ("picture", picture), ("report", page)):
        console.print(f"  {what:8}{path}", soft_wrap=True, highlight=False)
