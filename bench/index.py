"""Measure how long the index of nuScenes trainval takes to build and to open, and how much memory.

python bench/index.py FOLDER [--scenes 850]

Writes the tables of a root of that size into FOLDER, which must be new or written by this script: all scenes of the
official train and val splits, 34,149 samples, 12 channels at their rates (LiDAR 20 Hz, cameras 12, radars 13), one pose
per file, and strings and numbers as long as the real ones. Tables that the index does not read are empty.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from machine import read_cpu_name
from nuscenes.utils.splits import create_splits_scenes
from rich.console import Console
from rich.table import Table

from bridgeta_core.data.nuscenes.versions import TABLES
from bridgeta_core.utils.outputs import replace_when_done

VERSION = "v1.0-trainval"
SAMPLES = 34_149
CITIES = ("singapore-onenorth", "boston-seaport", "singapore-queenstown", "singapore-hollandvillage")
RATES = {
    "LIDAR_TOP": 20,
    **{f"CAM_{place}": 12 for place in ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK", "BACK_LEFT", "BACK_RIGHT")},
    **{f"RADAR_{place}": 13 for place in ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK_LEFT", "BACK_RIGHT")},
}
PERIOD = 500_000  # microseconds between keyframes


def token(*parts: object) -> str:
    """Make 32 hexadecimal digits that look random and depend on `parts` alone."""
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def write_list(path: Path, records: Iterable[str]) -> None:
    """Write a JSON list with a line per value, as nuScenes does, from its records as strings."""
    with open(path, "w", encoding="utf-8") as file:
        separator = "[\n"
        for record in records:
            file.write(separator + record)
            separator = ",\n"
        file.write("\n]" if separator == ",\n" else "[]")


def write_tables(root: Path, scenes: int) -> None:
    """Write the tables of a root and its basemap images, which are empty files."""
    official = create_splits_scenes()
    names = sorted(official["train"] + official["val"])[:scenes]
    # As many samples in all as the real tables have, for the full number of scenes.
    lengths = [SAMPLES * (i + 1) // 850 - SAMPLES * i // 850 for i in range(len(names))]
    with replace_when_done(root) as temporary:
        folder = temporary / VERSION
        folder.mkdir(parents=True)
        (temporary / "maps").mkdir()
        for city in CITIES:
            (temporary / "maps" / f"{token(city)}.png").touch()
        small = small_tables(names, lengths)
        for name in TABLES:
            if name == "sample_data":
                write_list(folder / f"{name}.json", sample_data(lengths))
            elif name == "ego_pose":
                write_list(folder / f"{name}.json", ego_poses(lengths))
            else:
                write_list(folder / f"{name}.json", (json.dumps(r, indent=0) for r in small.get(name, ())))


def small_tables(names: list[str], lengths: list[int]) -> dict[str, list[dict]]:
    """Make all tables that fit into memory."""
    logs = range(-(-len(names) // 12))
    intrinsics = [[1266.417203046554, 0.0, 816.2670197447984], [0.0, 1266.417203046554, 491.50706579294757], [0, 0, 1]]
    poses = {"translation": [1.70079118954, 0.0159456324149, 1.51095763913], "rotation": [0.5, -0.5, 0.5, -0.5]}
    return {
        "map": [
            {"token": token(c), "filename": f"maps/{token(c)}.png", "category": "semantic_prior", "log_tokens": []}
            for c in CITIES
        ],
        "sensor": [{"token": token(c), "channel": c, "modality": c.split("_")[0].lower()} for c in RATES],
        "calibrated_sensor": [
            {
                "token": token(scene, c),
                "sensor_token": token(c),
                **poses,
                "camera_intrinsic": intrinsics[: 3 * ("CAM" in c)],
            }
            for scene in range(len(names))
            for c in RATES
        ],
        "log": [
            {"token": token("log", log), "logfile": logfile(12 * log), "location": CITIES[log % 4]} for log in logs
        ],
        "scene": [
            {
                "token": token("scene", i),
                "log_token": token("log", i // 12),
                "nbr_samples": lengths[i],
                "name": name,
                "description": f"{'Night, rain' if i % 8 == 0 else 'Sunny'}, parked trucks, intersection, turn left",
            }
            for i, name in enumerate(names)
        ],
        "sample": [
            {"token": token(i, k), "timestamp": start(i) + k * PERIOD, "scene_token": token("scene", i)}
            for i, length in enumerate(lengths)
            for k in range(length)
        ],
    }


def start(scene: int) -> int:
    """Return the stamp of a scene's first sample, microseconds."""
    return 1_532_402_927_647_951 + scene * 60_000_000


def logfile(scene: int) -> str:
    """Name the log that a scene belongs to."""
    return f"n015-2018-{7 + scene // 12 % 5:02d}-24-11-22-45+0800"


def files(lengths: list[int]) -> Iterator[tuple[int, str, int, int, int]]:
    """Yield scene, channel, number of the file in both, number of its sample in the scene, and stamp in us."""
    for scene, length in enumerate(lengths):
        for channel, rate in RATES.items():
            last = (length - 1) * rate // 2
            for number in range(last + 1):
                sample = -(-number * 2 // rate)  # sweeps belong to the keyframe after them
                yield scene, channel, number, min(sample, length - 1), start(scene) + number * 1_000_000 // rate


def sample_data(lengths: list[int]) -> Iterator[str]:
    """Yield the records of all files as strings."""
    for scene, channel, number, sample, stamp in files(lengths):
        rate = RATES[channel]
        key = number == (sample * rate) // 2
        ending = {"LIDAR": "pcd.bin", "RADAR": "pcd", "CAM": "jpg"}[channel.split("_")[0]]
        image = ending == "jpg"
        own = token(scene, channel, number)
        yield (
            f'{{\n"token": "{own}",\n"sample_token": "{token(scene, sample)}",\n"ego_pose_token": "{own}",\n'
            f'"calibrated_sensor_token": "{token(scene, channel)}",\n"timestamp": {stamp},\n'
            f'"fileformat": "{ending[:3]}",\n"is_key_frame": {str(key).lower()},\n'
            f'"height": {900 if image else 0},\n"width": {1600 if image else 0},\n'
            f'"filename": "{"samples" if key else "sweeps"}/{channel}/{logfile(scene)}__{channel}__{stamp}.{ending}",\n'
            f'"prev": "{token(scene, channel, number - 1) if number else ""}",\n'
            f'"next": "{token(scene, channel, number + 1)}"\n}}'
        )


def ego_poses(lengths: list[int]) -> Iterator[str]:
    """Yield the poses of all files as strings; the numbers have as many digits as real ones."""
    for scene, channel, number, _, stamp in files(lengths):
        own = token(scene, channel, number)
        t = stamp * 1e-6 % 1000 + int(own[:8], 16) * 1e-12
        turn, tilt = 1 + t / 1e4, t / 3e5
        w, x = math.cos(turn) * math.cos(tilt), math.cos(turn) * math.sin(tilt)
        y, z = math.sin(turn) * math.sin(tilt), -math.sin(turn) * math.cos(tilt)
        yield (
            f'{{\n"token": "{own}",\n"timestamp": {stamp},\n"rotation": [\n{w!r},\n{x!r},\n{y!r},\n{z!r}\n],\n'
            f'"translation": [\n{400 + t / 7!r},\n{1100 + t / 3!r},\n0.0\n]\n}}'
        )


def forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache, as after a restart."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_fresh(code: str, cache: Path) -> dict[str, float]:
    """Run code in a process of its own; return its `figures` and the peak memory in GiB of it and its children."""
    before = (
        "import pickle, time; from pathlib import Path\n"
        "from bridgeta_core.data.nuscenes.dataset import NuScenesDataset\nfigures={}\n"
    )
    after = (
        "\nimport json, resource as r; figures['peak'] = sum("
        "r.getrusage(who).ru_maxrss for who in (r.RUSAGE_SELF, r.RUSAGE_CHILDREN)) / 2**20\nprint(json.dumps(figures))"
    )
    environment = {**os.environ, "BRIDGETA_CACHE": str(cache)}
    result = subprocess.run(
        [sys.executable, "-c", before + code + after], env=environment, check=True, stdout=subprocess.PIPE
    )
    return dict(json.loads(result.stdout))


def measure(root: Path) -> Table:
    """Build, open and read in fresh processes, each with files that are not in the page cache."""
    open_code = f"t = time.perf_counter(); dataset = NuScenesDataset({str(root)!r}, {VERSION!r})\n"
    open_code += "figures['seconds'] = time.perf_counter() - t; figures['processor'] = time.process_time()\n"
    read_code = "t = time.perf_counter(); [dataset[i] for i in range(0, len(dataset), 97)]\n"
    read_code += "figures['sample'] = 1e3 * (time.perf_counter() - t) / len(range(0, len(dataset), 97))"
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        cache, sent = Path(temporary) / "cache", Path(temporary) / "sent"
        forget(root)
        built = run_fresh(open_code, cache)
        forget(cache)
        opened = run_fresh(f"{open_code}Path({str(sent)!r}).write_bytes(pickle.dumps(dataset))\n{read_code}", cache)
        forget(cache)
        received = f"t = time.perf_counter(); dataset = pickle.loads(Path({str(sent)!r}).read_bytes())\n"
        loader = run_fresh(f"{received}figures['seconds'] = time.perf_counter() - t\n{read_code}", cache)
        size = sum(path.stat().st_size for path in cache.rglob("*"))
        pickled = sent.stat().st_size
    tables = {name: (root / VERSION / f"{name}.json").stat().st_size for name in TABLES}
    table = Table(title="The index of nuScenes trainval")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for name in ("sample_data", "ego_pose"):
        table.add_row(f"{name}.json, MB", f"{tables[name] / 1e6:,.0f}")
    table.add_row("all tables, MB", f"{sum(tables.values()) / 1e6:,.0f}")
    table.add_row("build, s", f"{built['seconds']:.1f}")
    table.add_row("of it processor time, s", f"{built['processor']:.1f}")
    table.add_row("build, peak memory, GiB", f"{built['peak']:.2f}")
    table.add_row("index on disk, MB", f"{size / 1e6:,.0f}")
    table.add_row("open, ms", f"{1e3 * opened['seconds']:.0f}")
    table.add_row("bytes sent to a loader process", f"{pickled:,}")
    table.add_row("open there, ms", f"{1e3 * loader['seconds']:.0f}")
    table.add_row("a sample with its records, from disk, ms", f"{loader['sample']:.2f}")
    table.add_row("peak memory there, mapped pages included, GiB", f"{loader['peak']:.2f}")
    return table


def main() -> None:
    """Write the tables if they are missing, measure and print."""
    parser = argparse.ArgumentParser(description="The index of tables of the size of nuScenes trainval.")
    parser.add_argument("folder", type=Path, help="where the tables are written; 2 GB")
    parser.add_argument("--scenes", type=int, default=850, help="fewer scenes are proportionally fewer samples")
    options = parser.parse_args()
    root = options.folder.resolve() / f"{options.scenes}_scenes"
    if not root.is_dir():
        write_tables(root, options.scenes)
    console = Console(width=120)
    console.print(measure(root))
    console.print(f"{read_cpu_name()}, {os.cpu_count()} cores, {datetime.date.today()}")


if __name__ == "__main__":
    main()
