"""The page of a replay: one HTML file with the grids beside the cameras, latencies and IoU. It works offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import cv2
import numpy as np

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.view.bev import ERROR_COLOURS, HATCH, HATCH_PERIOD, HATCH_WIDTH, OPACITIES, tint
from bridgeta_core.view.drawing import PAINT_ORDER, PAPER, RINGS
from bridgeta_core.view.sample import arrange
from bridgeta_ros.bags.report.latency_chart import COLOURS, draw_latencies
from bridgeta_ros.bags.report.moments import Moment, ShownReplay, Values
from bridgeta_ros.bags.summary import STAGES, ReplaySummary

_VIEW = 800  # pixels of the longer side of a grid's canvas
_STEP = 5  # percent; coarser values compress better
_LEVELS = 100 // _STEP + 1
_CLASS_NAMES = [cls.name for cls in CLASSES]


def format_page(replay: ShownReplay) -> str:
    """Format the page of a replay, as HTML."""
    summary, rig, grid = replay.summary, replay.rig, replay.grid
    order = [i for row in arrange(rig) for i in row]
    scored = [moment for moment in replay.moments if moment.is_scored]
    rows, columns = grid.shape
    places = {stamp: place for place, stamp in enumerate(replay.truths)}
    content = {
        "classes": [
            {
                "name": cls.name.replace("_", " "),
                "colour": cls.colour,
                "tints": [tint(cls.colour, opacity) for opacity in OPACITIES],
                "threshold": _round_threshold(threshold),
            }
            for cls, threshold in zip(CLASSES, replay.thresholds, strict=True)
        ],
        "order": [_CLASS_NAMES.index(name) for name in PAINT_ORDER],
        "grid": {"size": [rows, columns], "x_max": grid.x_max, "y_max": grid.y_max, "y_min": grid.y_min},
        "rings": RINGS,
        "paper": PAPER,
        "hatch": {"colours": HATCH, "period": HATCH_PERIOD, "width": HATCH_WIDTH},
        "errors": ERROR_COLOURS,
        "frames": [
            {
                "time": (moment.stamp_ns - summary.stamps[0]) / 1e9,
                "share": (moment.position + 0.5) / summary.used,
                "prediction": _pack(moment.values),
                "truth": None if moment.truth is None else places[moment.truth],
                "age": moment.age,
                "counts": _count(moment, replay) if moment.is_scored else None,
                "images": [_to_data_url(moment.images[i], "jpeg") for i in order],
            }
            for moment in replay.moments
        ],
        "truths": [_pack(values) for values in replay.truths.values()],
    }
    scale = _VIEW / max(grid.shape)
    canvas = f'width="{round(rows * scale)}" height="{round(columns * scale)}"'
    views = [_format_view("prediction", canvas, "Prediction")]
    if replay.truths:
        views.append(_format_view("truth", canvas, "Ground truth", "truth-note"))
        views.append(_format_view("errors", canvas, "What is wrong"))
    text = {name: _read(f"page.{name}") for name in ("html", "css", "js")}
    return Template(text["html"]).substitute(
        title=escape(Path(summary.source).name),
        subtitle=_format_subtitle(summary, len(replay.moments)),
        style=text["css"],
        script=text["js"],
        views="".join(views),
        iou_heads=_IOU_HEADS if scored else "",
        keys=_format_keys(bool(replay.truths)),
        worst=_WORST if scored else "",
        cameras=_format_cameras([rig.names[i] for i in order], max(len(row) for row in arrange(rig))),
        counts=_format_counts(summary),
        notes=_format_notes(summary),
        tables=_format_stages(summary) + _format_iou(summary),
        stages="".join(
            _format_key(f"background:{colour}", stage) for stage, colour in zip(STAGES, COLOURS, strict=False)
        ),
        chart=draw_latencies(summary.latencies, summary.stamps, _median_period_ms(summary)),
        # A closing tag inside a string would end the script.
        data=json.dumps(content, separators=(",", ":")).replace("</", "<\\/"),
    )


_IOU_HEADS = '<th scope="col">IoU here, %</th><th scope="col">of all shown</th>'
_WORST = (
    '<section aria-labelledby="worst-title"><h2 id="worst-title">Worst moments</h2>'
    '<p class="quiet">By the mean IoU of the classes that are ticked, over the cells that a camera sees, among the '
    'sets shown that have a ground truth of their own.</p><ol id="worst"></ol></section>'
)


def _read(name: str) -> str:
    return (resources.files("bridgeta_ros.bags.report") / name).read_text(encoding="utf-8")


def _round_threshold(threshold: float) -> int:
    """Return a threshold in percent as the page has it, at a step of its values."""
    return min(max(round(100 * threshold / _STEP), 1), _LEVELS - 2) * _STEP


def _pack(values: Values) -> list[str]:
    """Pack occupancy values into two pictures of three classes, ahead at the top: 0 unknown, 1 + percent // 5."""
    levels = np.where(values < 0, 0, 1 + values // _STEP).astype(np.uint8)
    upright = levels.transpose(2, 1, 0)[::-1, ::-1]
    packed = []
    for first in (0, 3):
        layers = np.ascontiguousarray(upright[..., first : first + 3][..., ::-1])
        encoded = cv2.imencode(".png", layers, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
        packed.append(_to_data_url(encoded.tobytes(), "png"))
    return packed


def _count(moment: Moment, replay: ShownReplay) -> list[list[list[int]]]:
    """Count the cells that are known to prediction and truth: `[6, levels, 2]`, by class, level and label."""
    assert moment.truth is not None
    counts = []
    for values, labels in zip(moment.values, replay.truths[moment.truth], strict=True):
        known = (values >= 0) & (labels >= 0)
        key = 2 * (values[known] // _STEP).astype(np.int64) + (labels[known] >= 50)
        counts.append(np.bincount(key, minlength=2 * _LEVELS).reshape(_LEVELS, 2).tolist())
    return counts


def _to_data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _format_view(name: str, canvas: str, title: str, note: str = "") -> str:
    extra = f' <span id="{note}"></span>' if note else ""
    label = f"{title}, seen from above, ahead is up"
    return (
        f"<figure><figcaption>{title}{extra}</figcaption>"
        f'<canvas id="{name}" {canvas} role="img" aria-label="{label}"></canvas></figure>'
    )


def _format_key(style: str, text: str, kind: str = "") -> str:
    return f'<span class="key"><span class="swatch {kind}" style="{style}"></span>{text}</span>'


def _format_keys(with_truth: bool) -> str:
    errors = ERROR_COLOURS.items() if with_truth else ()
    keys = [_format_key(f"background:rgb{colour}", name) for name, colour in errors]
    return "".join([*keys, _format_key("", "seen by no camera, or unknown", "hatched")])


def _format_cameras(names: Sequence[str], columns: int) -> str:
    figures = (
        f'<figure><button title="Enlarge"><img alt="{escape(name)}"></button>'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name in names
    )
    return f'<div class="cameras" style="--columns:{columns}">{"".join(figures)}</div>'


def _format_subtitle(summary: ReplaySummary, shown: int) -> str:
    shown_of = f"all {shown} sets" if shown == summary.used else f"{shown} of {summary.used} sets, evenly spread"
    return (
        f"Weights <code>{escape(summary.weights)}</code>, {len(summary.cameras)} cameras. Shown: {shown_of}. "
        "Ahead is up."
    )


def _format_counts(summary: ReplaySummary) -> str:
    return (
        f"Sets: {summary.describe_sets()}. <b>{summary.rate:.1f}</b> sets per second, "
        f"{summary.real_time_factor:.1f} times real time."
    )


def _format_notes(summary: ReplaySummary) -> str:
    reasons = [f"{count} times: {reason}" for reason, count in summary.failures.items()]
    return "".join(
        f'<p class="quiet">{escape(text)}</p>' for text in [*summary.list_losses(), *reasons[:5], *summary.remarks]
    )


def _median_period_ms(summary: ReplaySummary) -> float | None:
    gaps = np.diff(summary.stamps) / 1e6
    return float(np.median(gaps)) if len(gaps) else None


def _format_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], sums: int = 1) -> str:
    """Format an HTML table whose last `sums` rows stand out."""
    cells = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f"<tr{' class=sum' if i >= len(rows) - sums else ''}>" + "".join(f"<td>{escape(t)}</td>" for t in row) + "</tr>"
        for i, row in enumerate(rows)
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _format_stages(summary: ReplaySummary) -> str:
    rows = [(stage, f"{row['median']:.1f}", f"{row['p99']:.1f}") for stage, row in summary.summarise_stages().items()]
    return _format_table("Latency per set, ms", ("stage", "median", "p99"), rows)


def _format_iou(summary: ReplaySummary) -> str:
    if not summary.iou:
        return ""
    columns, rows = summary.format_iou()
    return _format_table(f"IoU in % over {summary.pairs} ground-truth keyframes", columns, rows)
