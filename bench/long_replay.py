"""Memory of a long replay: `python bench/long_replay.py [--minutes 30] [--jump 0] [--bag BAG] [--folder FOLDER]`.

A short drive is repeated until its bag is long enough, all stamps moved on, and replayed in a process of its own with
every sixth set (2 Hz). With --jump the stamps start over every so many minutes, as when a recorder's clock is set.
Without --bag it makes a synthetic drive with images of 400x225. Some 2 MB of disk a second are needed in --folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import read_cpu_name
from rich.console import Console
from rich.table import Table
from usage import Usage, add_rows

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.convert import SceneBagSettings, write_scene_bag
from bridgeta_ros.bags.io import BagReader, BagWriter, create_bag, open_bag
from bridgeta_ros.pipeline import messages, topics
from bridgeta_synth import SynthSettings, write_dataset

SECOND = 1_000_000_000
PERIOD = 2.0  # s between two looks at the replay
START = 30.0  # s until libraries and weights are loaded, and the first sets have come
EVERY = 6  # of the 12 sets of a second, as many as keyframes
STAMP = struct.Struct("<iI")  # at the start of a message with a header, after four bytes of encapsulation


def write_drive(folder: Path) -> Path:
    """Write the bag of a drive of 4 s."""
    write_dataset(folder / "root", SynthSettings(1, seed=22, duration=4.0, version="v1.0-mini", image_scale=0.25))
    write_scene_bag(folder / "root", "v1.0-mini", "scene-0001", folder / "drive", SceneBagSettings(lidar=False))
    return folder / "drive"


def repeat(drive: Path, out: Path, seconds: float, jump: float) -> float:
    """Write a drive again and again, each time later, and return how long it is in seconds."""
    with open_bag(drive) as source, create_bag(out) as (writer, _):
        for topic, kind in source.topics.items():
            writer.add_topic(topic, kind)
        times = [ns for _, ns, _ in source.raw(source.topics)]
        length, shift = times[-1] - times[0] + SECOND // 12, 0
        while shift < seconds * SECOND:
            stamps = shift % round(jump * SECOND) if jump else shift
            _copy(source, writer, shift, stamps, first=not shift)
            shift += length
    return shift / SECOND


def _copy(source: BagReader, writer: BagWriter, shift: int, stamps: int, first: bool) -> None:
    """Copy a drive, recorded `shift` nanoseconds later and with stamps that are `stamps` later."""
    for topic, ns, data in source.raw(source.topics):
        if topic.topic == topics.TF_STATIC:
            if first:
                writer.write_raw(topic.topic, ns, data)
        elif topic.msgtype == topics.TF_MESSAGE:
            message = source.decode(topic, data)
            for entry in message.transforms:
                stamp = messages.stamp_to_ns(entry.header) + stamps
                entry.header.stamp = messages.make_time(writer.factory, stamp)
            writer.write(topic.topic, ns + shift, message)
        else:
            moved = bytearray(data)
            seconds, nanoseconds = STAMP.unpack_from(moved, 4)
            STAMP.pack_into(moved, 4, *divmod(seconds * SECOND + nanoseconds + stamps, SECOND))
            writer.write_raw(topic.topic, ns + shift, bytes(moved))


def replay(bag: Path, out: Path) -> list[Usage]:
    """Replay a bag in a process of its own, and look at it until it ends."""
    program = "from bridgeta_ros.cli import main; main()"
    command = [sys.executable, "-c", program, "replay", str(bag), str(out), "--every", str(EVERY)]
    child, looks = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), []
    while child.poll() is None:
        time.sleep(PERIOD)
        look = Usage.measure(child.pid)  # of a process that has ended until it is waited for
        looks += [look] if look.memory else []
    if child.wait():
        raise SystemExit(f"the replay ended with {child.returncode}")
    return looks


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the bag")
    parser.add_argument("--jump", type=float, default=0.0, help="minutes after which the stamps start over; 0: never")
    parser.add_argument("--bag", type=Path, help="drive to repeat; a synthetic one without")
    parser.add_argument("--folder", type=Path, help="where the long bag lies meanwhile")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        try:
            drive = options.bag or write_drive(folder)
            seconds = repeat(drive, folder / "long", 60 * options.minutes, 60 * options.jump)
        except BridgeTAError as error:
            raise SystemExit(str(error)) from None
        size = sum(path.stat().st_size for path in (folder / "long").iterdir())
        start = time.monotonic()
        looks = replay(folder / "long", folder / "bev")
        took = time.monotonic() - start
        summary = json.loads((folder / "bev/replay.json").read_text())

    table = Table(title=f"Replay of {seconds / 60:.1f} minutes of bag, {size / 1e9:.1f} GB, in {took / 60:.1f} minutes")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in summary.items():
        if isinstance(value, int):
            table.add_row(key, str(value))
    add_rows(table, [look for look in looks if look.seconds - looks[0].seconds > START])
    for remark in summary["remarks"]:
        table.add_row("remark", remark)
    console = Console(width=120)
    console.print(table)
    where = f"{read_cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    console.print(f"{where}, {datetime.date.today()}")


if __name__ == "__main__":
    main()
