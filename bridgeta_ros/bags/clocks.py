"""What stamps and recording times say of a bag's cameras: dead, silent for a part, unstamped, or of another clock."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bridgeta_core.utils.errors import join_first
from bridgeta_ros.pipeline import messages
from bridgeta_ros.pipeline.sync import SyncCounts

_SILENT = 1_000_000_000  # ns at an end of the recording without images, beyond which a camera is called silent


def read_stamp(message: Any, recorded_ns: int) -> int:
    """Return the stamp of an image in nanoseconds; the time of its recording if its driver left it zero.

    Raises BridgeTAError for a time that messages cannot hold.
    """
    return messages.stamp_to_ns(message.header) or messages.check_time(recorded_ns)


@dataclass
class _Camera:
    recorded: list[int] = field(default_factory=list)  # ns, first and last
    delays: array[float] = field(default_factory=lambda: array("d"))  # ns from stamp to recording
    first: int | None = None  # stamp, ns
    stuck: bool = True  # whether all stamps are the first
    unstamped: int = 0


class CameraClocks:
    """Collects the stamps of images by camera, and names the cameras that explain why sets are incomplete."""

    def __init__(self, names: Sequence[str], slop_ns: int) -> None:
        self._cameras = {name: _Camera() for name in names}
        self._slop = slop_ns

    def add(self, name: str, message: Any, recorded_ns: int) -> int:
        """Take an image; return the stamp to use, as `read_stamp` does, and raise as it does."""
        stamp, camera = read_stamp(message, recorded_ns), self._cameras[name]
        camera.recorded = [*camera.recorded[:1], recorded_ns]
        camera.unstamped += messages.stamp_to_ns(message.header) == 0
        camera.delays.append(recorded_ns - stamp)
        camera.first = stamp if camera.first is None else camera.first
        camera.stuck &= stamp == camera.first
        return stamp

    def describe(self, counts: SyncCounts) -> list[str]:
        """Say what is wrong with clocks and cameras, from what became of the images."""
        unstamped = {name: camera.unstamped for name, camera in self._cameras.items() if camera.unstamped}
        remarks = []
        if unstamped:
            remarks.append(
                f"{sum(unstamped.values())} images of {join_first(list(unstamped), 6)} bear no stamp (zero): the times "
                "of recording are used"
            )
        alive = {name: camera for name, camera in self._cameras.items() if camera.recorded}
        remarks += [f"{name} has no image that can be read" for name in self._cameras if name not in alive]
        for name, camera in alive.items():
            count = len(camera.delays)
            if count > 1 and camera.stuck:
                remarks.append(f"all {count} images of {name} bear the same stamp: its driver does not set it")
        remarks += self._describe_silence(alive, counts.missed)
        # Images also arrive after different times of transport; where sets are complete, that is all it is.
        if counts.complete < counts.incomplete + counts.astray:
            remarks += self._describe_offsets(alive)
        return remarks

    def _describe_silence(self, alive: Mapping[str, _Camera], missed: Mapping[str, int]) -> list[str]:
        remarks = []
        start = min((camera.recorded[0] for camera in alive.values()), default=0)
        end = max((camera.recorded[-1] for camera in alive.values()), default=0)
        for name, camera in alive.items():
            first, last = camera.recorded[0] - start, end - camera.recorded[-1]
            parts = [f"until {first / 1e9:.1f} s after the first image of all"] if first > _SILENT else []
            parts += [f"in the last {last / 1e9:.1f} s"] if last > _SILENT else []
            if parts and missed.get(name):
                remarks.append(f"{name} is silent {' and '.join(parts)}")
        return remarks

    def _describe_offsets(self, alive: Mapping[str, _Camera]) -> list[str]:
        """Name the cameras whose stamps are further from the time of recording than those of most others."""
        delays = {name: median(camera.delays) for name, camera in alive.items()}
        if not delays:
            return []

        def rank(delay: float) -> tuple[int, float]:
            return sum(abs(delay - other) <= self._slop for other in delays.values()), -abs(delay)

        usual = max(delays.values(), key=rank)
        return [
            f"the stamps of {name} are {abs(delay - usual) / 1e9:.3f} s {'behind' if delay > usual else 'ahead of'} "
            "those of the other cameras, by the times of recording: is its clock another one?"
            for name, delay in delays.items()
            if abs(delay - usual) > self._slop
        ]
