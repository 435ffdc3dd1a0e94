"""The whole `bridgeta` command: the core's commands, the synthetic world's, and those on ROS 2 bags."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridgeta_core.cli.commands import app
from bridgeta_core.cli.common import (
    STUDENTS,
    Backend,
    Precision,
    Root,
    Source,
    Version,
    Weights,
    console,
    find_table_version,
    say,
    show,
)
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.cli import synth

if TYPE_CHECKING:
    from bridgeta_core.data.frames import Frame
    from bridgeta_core.deploy.weights import WeightsInfo

app.command(epilog=show("bridgeta synth data/town --scenes 8 --keyframes-only --image-scale 0.5"))(synth)


class Storage(str, Enum):
    """How a bag is stored."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


class Distro(str, Enum):
    """The oldest ROS 2 that has to read a bag."""

    jazzy = "jazzy"
    humble = "humble"


Overwrite = Annotated[bool, typer.Option(help="Replace the output if it exists.")]


@app.command(epilog=show("bridgeta bag data/val drive --scene scene-0001"))
def bag(
    root: Root,
    out: Annotated[Path, typer.Argument(help="Bag folder to write.")],
    scene: Annotated[str, typer.Option(help="Name of the scene, such as scene-0061.")],
    version: Version = None,
    storage: Annotated[Storage, typer.Option(help="File format of the bag.")] = Storage.mcap,
    distro: Annotated[Distro, typer.Option(help="Oldest ROS 2 that has to read it.")] = Distro.jazzy,
    keyframes_only: Annotated[bool, typer.Option(help="Leave out the sweeps between keyframes.")] = False,
    lidar: Annotated[bool, typer.Option(help="Include the LiDAR.")] = True,
    source: Source = "nuscenes",
    overwrite: Overwrite = False,
) -> None:
    """Turn a scene of a dataset into a ROS 2 bag: images, CameraInfo, TF, LiDAR and ground-truth grids."""
    from bridgeta_ros.bags.convert import SceneBagSettings, write_scene_bag

    settings = SceneBagSettings(storage.value, distro.value, keyframes_only, lidar, overwrite)
    content = write_scene_bag(root, find_table_version(root, version, source), scene, out, settings, source=source)
    for remark in content.remarks:
        say(f"note: {remark}")
    say(f"Wrote {content.path}: {sum(content.counts.values())} messages over {content.seconds:.1f} s")


@app.command(epilog=show("bridgeta replay drive bev --weights tiny --backend auto"))
def replay(
    source: Annotated[Path, typer.Argument(metavar="BAG", help="ROS 2 bag with camera topics.")],
    out: Annotated[Path, typer.Argument(help="Bag folder to write.")],
    weights: Annotated[str, typer.Option(help=f"A .safetensors file, or one of {', '.join(STUDENTS)}.")] = "tiny",
    calibration: Annotated[Path | None, typer.Option(help="rig.yaml in place of CameraInfo and TF.")] = None,
    cameras: Annotated[str, typer.Option(help="Cameras or topics with commas; all by default.")] = "",
    base_frame: Annotated[str, typer.Option(help="Frame of the vehicle: x forward, y left.")] = "base_link",
    slop: Annotated[float, typer.Option(help="Longest time between the images of a set, seconds.", min=0)] = 0.06,
    every: Annotated[int, typer.Option(help="Run every n-th set.", min=1)] = 1,
    max_rate: Annotated[
        float | None, typer.Option(help="Run at most so many sets per second of recording.", min=0.001)
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Probability above which the navigation grid is drivable.", min=0, max=1)
    ] = 0.5,
    storage: Annotated[Storage, typer.Option(help="File format of the bag.")] = Storage.mcap,
    distro: Annotated[Distro, typer.Option(help="Oldest ROS 2 that has to read it.")] = Distro.jazzy,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: Backend = "torch",
    precision: Precision = "float32",
    overwrite: Overwrite = False,
) -> None:
    """Run a bag's cameras through the network, without ROS, and write the BEV grids as a bag.

    It takes sets: an image of every camera, from about the same time.
    """
    from bridgeta_ros.bags.replay import ReplaySettings
    from bridgeta_ros.bags.replay import replay as run_replay

    settings = ReplaySettings(
        calibration=calibration,
        cameras=[name.strip() for name in cameras.split(",") if name.strip()],
        base_frame=base_frame,
        slop=slop,
        every=every,
        max_rate=max_rate,
        threshold=threshold,
        storage=storage.value,
        distro=distro.value,
        device=device,
        backend=backend,
        precision=precision,
        overwrite=overwrite,
    )
    summary = run_replay(source, out, weights, settings)
    summary.print(console)
    say(f"Wrote {out}")


@app.command(epilog=show("bridgeta report bev drive report.html"))
def report(
    replayed: Annotated[Path, typer.Argument(metavar="REPLAY", help="Bag that `bridgeta replay` wrote.")],
    source: Annotated[Path, typer.Argument(metavar="BAG", help="The bag that was replayed.")],
    out: Annotated[Path, typer.Argument(help="Page to write, .html, or film, .mp4.")],
) -> None:
    """Write a replay as one HTML file, grids beside cameras, what is wrong, latencies and IoU; or as a film."""
    from bridgeta_ros.bags.report import write_report

    write_report(replayed, source, out)
    say(f"Wrote {out}")


@app.command(epilog=show("bridgeta export tiny tiny_vehicle --for vehicle"))
def export(
    weights: Weights,
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    file_format: Annotated[str, typer.Option("--format", help="Of the graphs: onnx, openvino or aoti.")] = "onnx",
    purpose: Annotated[
        str | None, typer.Option("--for", help="vehicle: with an example, its input and a page that explains it all.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Dataset folder or ROS 2 bag to compare on; by default a few synthetic streets are rendered."
        ),
    ] = None,
    version: Version = None,
    scenes: Annotated[
        str, typer.Option(help="Of a dataset: all, an official split (val), or scene names with commas.")
    ] = "all",
    source: Source = "nuscenes",
    sets: Annotated[int, typer.Option(help="How many sets of images are compared.", min=1)] = 4,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of a probability that is accepted.", min=0, max=1)
    ] = 1e-3,
    overwrite: Overwrite = False,
) -> None:
    """Write a student's graphs for programs without PyTorch, once they give the same grids.

    The folder has the graphs, their description, and the plan of the lift in NumPy.
    """
    from bridgeta_core.deploy.export.folder import export_student

    if purpose not in (None, "vehicle"):
        raise BridgeTAError(f"--for {purpose!r} is not known; there is --for vehicle", exit_code=2)
    parity = export_student(
        weights,
        out,
        file_format,
        lambda info: _choose_frames(info, data, version, scenes, source, sets),
        vehicle=purpose is not None,
        tolerance=tolerance,
        overwrite=overwrite,
        inputs=[] if data is None else [data],
    )
    if parity.has_labels:
        console.print(parity.build_table())
    say(parity.describe())
    say(f"Wrote {out}")


def _choose_frames(
    info: WeightsInfo, data: Path | None, version: str | None, scenes: str, source: str, sets: int
) -> tuple[str, Iterable[Frame]]:
    """Choose sets of images that are spread evenly over a dataset or a bag, or rendered, and name them."""
    if data is None:
        return _render_frames(info, sets)
    if data.is_file() or (data / "metadata.yaml").is_file():
        from bridgeta_ros.bags.frames import read_bag_frames

        return f"{data} (a bag has no labels)", read_bag_frames(data, info, sets)
    from bridgeta_core.data.dataset import open_dataset
    from bridgeta_core.data.frames import FrameDataset

    root = data
    dataset = open_dataset(source, root, find_table_version(root, version, source))
    frames = FrameDataset(dataset, scenes, info.cameras, info.model.image, info.grid)
    step = max(1, len(frames) // sets)
    return f"{root} ({scenes})", (frames[i] for i in range(0, len(frames), step)[:sets])


def _render_frames(info: WeightsInfo, sets: int) -> tuple[str, Iterable[Frame]]:
    """Render sets of images on synthetic streets that no shipped weights have seen, and name them."""
    from bridgeta_synth import nuscenes
    from bridgeta_synth.dataset.frames import SyntheticFrames
    from bridgeta_synth.settings import SynthSettings

    known = set(info.cameras) <= nuscenes.CAMERA_OF.keys()
    cameras = info.cameras if known else tuple(nuscenes.CAMERA_OF)
    settings = SynthSettings(scenes=sets, split="test", duration=0, keyframes_only=True, lidar=False)
    frames = SyntheticFrames(settings, info.model.image, info.grid, cameras)
    return "synthetic streets (seed 0, split test)", (frames[i] for i in range(sets))


@app.command(epilog=show("bridgeta demo out/demo --seed 7"))
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything that the demo makes.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the synthetic drive.", min=0)] = 8,
) -> None:
    """Run the whole way: a synthetic drive, its bag, the replay through the shipped weights, the report."""
    from bridgeta_ros.bags.demo import run_demo

    run_demo(out, seed, console)
