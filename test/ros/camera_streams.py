"""Streams of stamped camera images as nuScenes' vehicle sends them, whole or with faults."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bridgeta_ros.pipeline.sync import ImageSet, Matcher, Synchroniser

MS = 1_000_000
SLOP = 60 * MS
# Camera stamps relative to the LiDAR's in nuScenes, in order, and its 12 Hz.
OFFSETS = {
    "FRONT_LEFT": -43_100_000,
    "FRONT": -35_500_000,
    "FRONT_RIGHT": -27_600_000,
    "BACK_RIGHT": -20_100_000,
    "BACK": -10_400_000,
    "BACK_LEFT": -500_000,
}
NAMES = list(OFFSETS)
PERIOD = 83_333_333
START = 10**18
Message = tuple[str, int]
Cycle = list[Message]


def nuscenes(cycles: int, names: Sequence[str] = NAMES, first: int = 0) -> list[Cycle]:
    start = START + first * PERIOD
    return [[(name, start + i * PERIOD + OFFSETS[name]) for name in NAMES if name in names] for i in range(cycles)]


def flat(cycles: Sequence[Cycle]) -> list[Message]:
    return [message for cycle in cycles for message in cycle]


def faulty_stream(seed: int) -> list[Message]:
    """Make a few seconds with lost images, a camera that dies, and delays of up to 75 ms by camera; played twice."""
    rng = random.Random(seed)
    delay = {name: rng.randrange(75 * MS) for name in NAMES}
    loss, dead, last = rng.choice((0.0, 0.02, 0.2)), rng.choice((None, *NAMES)), rng.randrange(40)
    cycles = nuscenes(40)
    sent = [
        message
        for i, cycle in enumerate(cycles)
        for message in cycle
        if rng.random() >= loss and not (message[0] == dead and i > last)
    ]
    return 2 * sorted(sent, key=lambda message: message[1] + delay[message[0]])


def synchronise(
    stream: Sequence[Message], minimum: int | None, matcher: Matcher[Message] | None = None
) -> tuple[list[ImageSet[Message]], Synchroniser[Message]]:
    """Return the sets of a stream, and the synchroniser that made them as the live node does."""
    sync: Synchroniser[Message] = Synchroniser(NAMES, SLOP, minimum=minimum, matcher=matcher, patience_ns=SLOP)
    return [images for message in stream for images in sync.add(*message, message)], sync
