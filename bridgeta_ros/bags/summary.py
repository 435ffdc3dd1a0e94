"""What a replay did: the counts, the latencies and the agreement with ground truth."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
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
from bridgeta_core.utils.errors import BridgeTAError

FILE_NAME = "replay.json"
STAGES = ("decode", "preprocess", "network", "encode", "write")
_REASONS = 5  # that are printed; the file has all


@dataclass
class ReplaySummary:
    """The figures of one replay; kept as `replay.json` in the bag folder that it wrote.

    Sets: `used` ran, `incomplete` lacked a camera, `dropped` were complete but left out on request, `failed` held an
    image that could not be used. `latencies` are milliseconds per stage and used set, beside `stamps` in
    nanoseconds. `iou` has per class the agreement with the bag's ground truth (empty without), over `pairs` grids.
    """

    source: str
    weights: str
    cameras: dict[str, str]  # name -> image topic
    slop: float
    grid: dict[str, float]
    used: int = 0
    incomplete: int = 0
    dropped: int = 0
    failed: int = 0
    late: int = 0
    resets: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    wall_seconds: float = 0.0
    bag_seconds: float = 0.0
    stamps: list[int] = field(default_factory=list)
    latencies: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    pairs: int = 0
    iou: dict[str, dict[str, float | None]] = field(default_factory=dict)

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
        return self.mean("best")

    def mean(self, column: str) -> float | None:
        """The mean of a column of `iou` over the classes that have it."""
        values = [value for entry in self.iou.values() if (value := entry[column]) is not None]
        return float(np.mean(values)) if values else None

    def stages(self) -> dict[str, dict[str, float]]:
        """Median and 99th percentile of each stage and of their sum, in milliseconds."""
        columns = {stage: np.array(values) for stage, values in self.latencies.items() if values}
        if not columns:
            return {}
        columns["total"] = np.sum(list(columns.values()), axis=0)
        return {
            stage: {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}
            for stage, values in columns.items()
        }

    def iou_rows(self) -> tuple[list[str], list[list[str]]]:
        """`iou` as text: the heads of the columns, and a row per class and one of means, in percent."""
        columns = list(next(iter(self.iou.values())))
        rows = [[name, *(_cell(entry[c], c == "threshold") for c in columns)] for name, entry in self.iou.items()]
        means = (None if column == "threshold" else self.mean(column) for column in columns)
        rows.append(["mean", *(_cell(value, False) for value in means)])
        return ["class", *({"half": "at 0.5", "threshold": "at threshold"}.get(c, c) for c in columns)], rows

    def save(self, path: Path) -> None:
        """Write as JSON."""
        content = asdict(self)
        content["latencies"] = {k: [round(v, 3) for v in values] for k, values in self.latencies.items()}
        derived = {"rate": self.rate, "real_time_factor": self.real_time_factor, "mean_iou": self.mean_iou}
        path.write_text(json.dumps({**content, **derived, "stages_ms": self.stages()}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> ReplaySummary:
        """Read what `save` wrote. Raises BridgeTAError when it is absent or something else."""
        try:
            content: Mapping[str, Any] = json.loads(Path(path).read_text())
            return cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except OSError as error:
            raise BridgeTAError(
                f"cannot be read ({error.strerror})", where=path, fix="Give a bag that `bridgeta replay` wrote"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BridgeTAError(f"is not the summary of a replay ({error})", where=path) from error

    def print(self, console: Console) -> None:
        """Tables for a person."""
        stages = self.stages()
        if stages:
            table = Table(title="Latency per set, ms")
            for column in ("stage", "median", "p99"):
                table.add_column(column, justify="left" if column == "stage" else "right")
            for stage, row in stages.items():
                table.add_row(stage, f"{row['median']:.1f}", f"{row['p99']:.1f}", end_section=stage == STAGES[-1])
            console.print(table)
        if self.iou:
            columns, rows = self.iou_rows()
            table = Table(title=f"IoU in % over {self.pairs} ground-truth keyframes")
            for column in columns:
                table.add_column(column, justify="left" if column == "class" else "right")
            for line in rows:
                table.add_row(*line, end_section=line is rows[-2])
            console.print(table)
        console.print(
            f"sets: {self.used} used, {self.incomplete} incomplete, {self.dropped} dropped, {self.failed} failed; "
            f"{self.rate:.1f} sets/s, {self.real_time_factor:.1f} x real time"
        )
        shown = list(self.failures.items())[:_REASONS]
        for reason, count in shown:
            console.print(f"failed {count} x: {reason}", markup=False)
        if len(self.failures) > len(shown):
            console.print(f"and {len(self.failures) - len(shown)} more reasons in {FILE_NAME}")
        for remark in self.remarks:
            console.print(f"note: {remark}", markup=False)


def _cell(value: float | None, as_is: bool) -> str:
    return f"{value:.2f}" if as_is and value is not None else format_percent(value)


def grid_values(message: Any, grid: BevGrid) -> NDArray[np.int8] | None:
    """The values `[Y, X]` of an OccupancyGrid, or None when it does not lie on `grid`."""
    info = message.info
    origin, turn = info.origin.position, info.origin.orientation
    here = (info.height, info.width) == grid.shape and np.allclose(
        (info.resolution, origin.x, origin.y, abs(turn.w)), (grid.resolution, grid.x_min, grid.y_min, 1.0), atol=1e-4
    )
    return np.frombuffer(message.data, dtype=np.int8).reshape(grid.shape) if here else None


class Agreement:
    """Pairs each ground truth with the result of the nearest stamp, and scores the pairs with the protocol's metric.

    Grids and results may come in any interleaving. Results of the last `window_ns` are kept; a ground truth without a
    result within `tolerance_ns` does not count, nor do unknown cells (-1).
    """

    def __init__(self, grid: BevGrid, tolerance_ns: int = 60_000_000, window_ns: int = 1_000_000_000) -> None:
        self.pairs = 0
        self._metric = MapIoU(grid)
        self._tolerance, self._window = tolerance_ns, window_ns
        self._truths: dict[int, dict[str, NDArray[np.int8]]] = {}
        self._results: deque[tuple[int, NDArray[np.float32]]] = deque()

    def add_truth(self, ns: int, name: str, values: NDArray[np.int8]) -> None:
        """One class's occupancy values `[Y, X]`; a class that does not come is unknown."""
        self._truths.setdefault(ns, {})[name] = values

    def add_result(self, ns: int, probabilities: NDArray[np.float32]) -> None:
        """A result `[6, Y, X]`; ground truths that no later one can be nearer to are counted."""
        self._results.append((ns, probabilities))
        while self._results[0][0] < ns - self._window:
            self._results.popleft()
        self._settle([stamp for stamp in self._truths if stamp + self._tolerance < ns])

    def result(self) -> IoU:
        """The metric, once no more of either will come."""
        self._settle(list(self._truths))
        return self._metric.result()

    def _settle(self, stamps: list[int]) -> None:
        for stamp in stamps:
            truth = self._truths.pop(stamp)
            near = [(abs(ns - stamp), p) for ns, p in self._results if abs(ns - stamp) <= self._tolerance]
            if not near:
                continue
            probabilities = min(near, key=lambda pair: pair[0])[1]
            unknown = np.full(probabilities.shape[1:], -1, dtype=np.int8)
            values = torch.from_numpy(np.stack([truth.get(name, unknown) for name in CLASS_NAMES]))[None]
            self._metric.update(torch.from_numpy(probabilities)[None], values >= 50, values >= 0)
            self.pairs += 1
