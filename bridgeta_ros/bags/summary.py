"""The summary of a replay: counts, latencies and the agreement with ground truth."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bridgeta_core.evaluation.metric import IoU, MapIoU, format_percent
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.limits import LARGEST_TEXT, parse_json, read_limited, select_fields

FILE_NAME = "replay.json"
STAGES = ("decode", "preprocess", "network", "encode", "write")
_PRINTED_REASONS = 5  # the file has all
_MOST_WAITING = 2**28  # bytes of results, and of ground truths, that wait for each other


@dataclass
class ReplaySummary:
    """The figures of one replay, stored as `replay.json` in the bag folder that it wrote."""

    source: str
    weights: str
    cameras: dict[str, str]  # name -> image topic
    slop: float  # seconds
    grid: dict[str, float]
    thresholds: dict[str, float] = field(default_factory=dict)  # by class, from which pictures show it
    network: str = ""  # what computed it: device, back end, precision and why these
    used: int = 0  # sets that ran
    incomplete: int = 0  # sets that lacked a camera
    dropped: int = 0  # complete sets left out on request
    failed: int = 0  # sets with an image that could not be used
    late: int = 0  # images as old as a used one of their camera
    resets: int = 0  # times that stamps went back
    astray: int = 0  # images whose stamps are of another clock than the other cameras'
    failures: dict[str, int] = field(default_factory=dict)  # reason -> count
    missed: dict[str, int] = field(default_factory=dict)  # incomplete sets that lacked a camera, by camera
    remarks: list[str] = field(default_factory=list)
    coverage: dict[str, str] = field(default_factory=dict)  # camera -> what it sees of the grid, in words
    wall_seconds: float = 0.0
    bag_seconds: float = 0.0
    stamps: list[int] = field(default_factory=list)  # nanoseconds, of each used set
    latencies: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})  # ms
    pairs: int = 0  # ground-truth grids that were scored
    iou: dict[str, dict[str, float | None]] = field(default_factory=dict)  # by class; empty without ground truth

    @property
    def rate(self) -> float:
        """Sets per second of computing."""
        return self.used / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def real_time_factor(self) -> float:
        """Seconds of recording per second of computing; above 1 is faster than real time."""
        return self.bag_seconds / self.wall_seconds if self.wall_seconds and self.used > 1 else 0.0

    @property
    def mean_iou(self) -> float | None:
        """The mean over the classes that are scored, at their best thresholds."""
        return self.average_iou("best")

    def average_iou(self, column: str) -> float | None:
        """Average a column of `iou` over the classes that have it."""
        values = [value for entry in self.iou.values() if (value := entry[column]) is not None]
        return float(np.mean(values)) if values else None

    def summarise_stages(self) -> dict[str, dict[str, float]]:
        """Return median and 99th percentile of each stage and of their sum, in milliseconds."""
        columns = {stage: np.array(values) for stage, values in self.latencies.items() if values}
        if not columns:
            return {}
        columns["total"] = np.sum(list(columns.values()), axis=0)
        return {
            stage: {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}
            for stage, values in columns.items()
        }

    def format_iou(self) -> tuple[list[str], list[list[str]]]:
        """Format `iou` in percent: the heads of the columns, then a row per class and one of means."""
        columns = list(next(iter(self.iou.values())))
        rows = [[name, *(_format_cell(c, entry[c]) for c in columns)] for name, entry in self.iou.items()]
        means = [None if column == "threshold" else self.average_iou(column) for column in columns]
        rows.append(["mean", *map(_format_cell, columns, means)])
        return ["class", *({"half": "at 0.5", "threshold": "at threshold"}.get(c, c) for c in columns)], rows

    def describe_sets(self) -> str:
        """Say what became of the sets."""
        left_out = f"{self.dropped} left out on request, " if self.dropped else ""
        return f"{self.used} used, {left_out}{self.incomplete} incomplete, {self.failed} failed"

    def describe_missed(self) -> str:
        """Name the cameras that incomplete sets lacked, those that lacked most often first."""
        ranked = sorted(self.missed.items(), key=lambda item: -item[1])
        return join_first([f"{name} {count} x" for name, count in ranked], 6)

    def list_losses(self) -> list[str]:
        """Say what became of images that are in no set that ran, beyond the counts of sets."""
        losses = []
        if self.incomplete and self.missed:
            losses.append(f"incomplete sets lacked {self.describe_missed()}")
        if self.late:
            losses.append(f"{self.late} images were not newer than one of their camera that was used before")
        if self.astray:
            losses.append(f"{self.astray} images bear stamps of another clock than the other cameras'")
        if self.resets:
            losses.append(f"stamps went back {self.resets} x, where sets began anew")
        return losses

    def save(self, path: Path) -> None:
        """Write the summary as JSON."""
        content = asdict(self)
        content["latencies"] = {k: [round(v, 3) for v in values] for k, values in self.latencies.items()}
        derived = {"rate": self.rate, "real_time_factor": self.real_time_factor, "mean_iou": self.mean_iou}
        path.write_text(json.dumps({**content, **derived, "stages_ms": self.summarise_stages()}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> ReplaySummary:
        """Read a file that `save` wrote. Raises BridgeTAError when it is absent or something else."""
        try:
            summary = cls(**select_fields(cls, parse_json(read_limited(path, LARGEST_TEXT))))
            summary._require_consistency()
            return summary
        except OSError as error:
            raise BridgeTAError(
                f"cannot be read ({error.strerror})", where=path, fix="Give a bag that `bridgeta replay` wrote"
            ) from error
        except (ValueError, TypeError, BridgeTAError) as error:
            raise BridgeTAError(
                f"is not the summary of a replay ({error})", where=path, fix="Replay the bag again"
            ) from error

    def _require_consistency(self) -> None:
        """Raise ValueError where fields contradict each other; BridgeTAError or TypeError for a grid that is none."""
        BevGrid(**self.grid)
        if not 0 < self.used == len(self.stamps):
            raise ValueError(f"it has {len(self.stamps)} stamps of {self.used} sets")
        if not self.cameras or self.slop < 0:
            raise ValueError("it has no cameras, or a slop below zero")
        if self.thresholds and self.thresholds.keys() != set(CLASS_NAMES):
            raise ValueError("its thresholds are not those of the classes")
        if self.latencies.keys() != set(STAGES) or {len(v) for v in self.latencies.values()} != {self.used}:
            raise ValueError(f"its latencies are not {self.used} of each of {', '.join(STAGES)}")
        columns = {tuple(entry) for entry in self.iou.values()}
        if len(columns) > 1 or (columns and not {"best", "half", "threshold"} <= set(*columns)):
            raise ValueError("its iou lacks columns")

    def print(self, console: Console) -> None:
        """Print tables and counts for a person."""
        stages = self.summarise_stages()
        if stages:
            table = Table(title="Latency per set, ms")
            for column in ("stage", "median", "p99"):
                table.add_column(column, justify="left" if column == "stage" else "right")
            for stage, row in stages.items():
                table.add_row(stage, f"{row['median']:.1f}", f"{row['p99']:.1f}", end_section=stage == STAGES[-1])
            console.print(table)
        if self.iou:
            columns, rows = self.format_iou()
            table = Table(title=f"IoU in % over {self.pairs} ground-truth keyframes")
            for column in columns:
                table.add_column(column, justify="left" if column == "class" else "right")
            for line in rows:
                table.add_row(*line, end_section=line is rows[-2])
            console.print(table)
        pace = f"{self.rate:.1f} sets/s, {self.real_time_factor:.1f} x real time"
        console.print(f"sets: {self.describe_sets()}; {pace}", markup=False)
        for loss in self.list_losses():
            console.print(loss, markup=False)
        shown = list(self.failures.items())[:_PRINTED_REASONS]
        for reason, count in shown:
            console.print(f"failed {count} x: {reason}", markup=False)
        if len(self.failures) > len(shown):
            console.print(f"and {len(self.failures) - len(shown)} more reasons in {FILE_NAME}")
        for remark in self.remarks:
            console.print(f"note: {remark}", markup=False)


def _format_cell(column: str, value: float | None) -> str:
    return f"{value:.2f}" if column == "threshold" and value is not None else format_percent(value)


def read_grid(message: Any, grid: BevGrid) -> NDArray[np.int8] | None:
    """Return the values `[Y, X]` of an OccupancyGrid, or None when it does not lie on `grid` or lacks values."""
    info = message.info
    origin, turn = info.origin.position, info.origin.orientation
    complete = len(message.data) == info.height * info.width
    matches = (
        (info.height, info.width) == grid.shape
        and complete
        and np.allclose(
            (info.resolution, origin.x, origin.y, abs(turn.w)),
            (grid.resolution, grid.x_min, grid.y_min, 1.0),
            atol=1e-4,
        )
    )
    return np.frombuffer(message.data, dtype=np.int8).reshape(grid.shape) if matches else None


class Agreement:
    """Scores results against the ground-truth grids of the same bag, with the protocol's metric.

    Each ground truth is paired with the result of the nearest stamp. Grids and results may be interleaved in any way.
    Classes that are NaN in a result are not scored. Only results of the last `window_ns` are considered; where time
    goes back by more than that, those from before are scored and forgotten. A ground truth without a result within
    `tolerance_ns` does not count, nor do unknown cells (-1), nor the oldest ones where more wait than memory should
    hold: `lost` counts these.
    """

    def __init__(self, grid: BevGrid, tolerance_ns: int = 60_000_000, window_ns: int = 1_000_000_000) -> None:
        self.pairs = self.lost = 0
        self._metric = MapIoU(grid)
        self._tolerance, self._window = tolerance_ns, window_ns
        self._shape = grid.shape
        self._truths: dict[int, dict[str, NDArray[np.uint8]]] = {}  # bits, by stamp and class
        self._waiting = 0  # bytes of them
        self._results: deque[tuple[int, NDArray[np.float32]]] = deque()

    def add_truth(self, ns: int, name: str, values: NDArray[np.int8]) -> None:
        """Add one class's occupancy values `[Y, X]`; a class that is never added is unknown."""
        # A keyframe of six grids would take 240 kB, and a recording may have all of them at its beginning.
        truth, bits = self._truths.setdefault(ns, {}), np.packbits(np.stack([values >= 50, values >= 0]))
        self._waiting += bits.nbytes if name not in truth else 0
        truth[name] = bits
        while self._waiting > _MOST_WAITING and len(self._truths) > 1:
            self._take_truth(next(iter(self._truths)))
            self.lost += 1

    def add_result(self, ns: int, probabilities: NDArray[np.float32]) -> None:
        """Add a result `[6, Y, X]`; score the ground truths that no later result can be nearer to."""
        if self._results and ns < self._results[-1][0] - self._window:
            self._score([stamp for stamp in self._truths if self._find_near(stamp)])
            self._results.clear()
        self._results.append((ns, probabilities))
        many = max(2, _MOST_WAITING // probabilities.nbytes)
        while self._results[0][0] < ns - self._window or len(self._results) > many:
            self._results.popleft()
        self._score([stamp for stamp in self._truths if stamp + self._tolerance < ns])

    def conclude(self) -> IoU:
        """Score what is left, and return the metric of all."""
        self._score(list(self._truths))
        return self._metric.result()

    def _score(self, stamps: list[int]) -> None:
        for stamp in stamps:
            truth, near = self._take_truth(stamp), self._find_near(stamp)
            if not near:
                continue
            probabilities = min(near, key=lambda pair: pair[0])[1]
            unknown = np.zeros((2, *self._shape), dtype=bool)
            layers = [self._unpack(truth[name]) if name in truth else unknown for name in CLASS_NAMES]
            values, known = torch.from_numpy(np.stack(layers, axis=1))[:, None]
            learned = ~np.isnan(probabilities).all(axis=(1, 2))
            known &= torch.from_numpy(learned)[:, None, None]
            self._metric.update(torch.from_numpy(np.nan_to_num(probabilities))[None], values, known)
            self.pairs += 1

    def _find_near(self, stamp: int) -> list[tuple[int, NDArray[np.float32]]]:
        """Return the results within the tolerance of a stamp, with their distances in nanoseconds."""
        return [(abs(ns - stamp), p) for ns, p in self._results if abs(ns - stamp) <= self._tolerance]

    def _take_truth(self, stamp: int) -> dict[str, NDArray[np.uint8]]:
        truth = self._truths.pop(stamp)
        self._waiting -= sum(bits.nbytes for bits in truth.values())
        return truth

    def _unpack(self, bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return `[2, Y, X]`: where a class is, and where it is known."""
        rows, columns = self._shape
        return np.unpackbits(bits, count=2 * rows * columns).reshape(2, rows, columns).astype(bool)
