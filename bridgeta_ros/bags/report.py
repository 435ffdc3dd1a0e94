"""The report of a replay: one HTML file with the grids beside the cameras, latencies and IoU. It works offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import check_output, replace_when_done
from bridgeta_core.view.drawing import PAINT_ORDER, PAPER, RINGS, STEPS
from bridgeta_core.view.sample import arrange
from bridgeta_ros.bags.clocks import read_stamp
from bridgeta_ros.bags.io import BagReader, open_bag, progress_bar
from bridgeta_ros.bags.latency_chart import COLOURS, draw_latencies
from bridgeta_ros.bags.replay import RIG_NAME
from bridgeta_ros.bags.storage.topic import RecordedTopic
from bridgeta_ros.bags.summary import FILE_NAME, STAGES, ReplaySummary, read_grid
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.images import EncodedImage, RawImage, decode_image, image_from_message
from bridgeta_ros.pipeline.sync import Synchroniser

_THUMBNAIL = 320  # pixels wide
_QUALITY = 72
_VIEW = 640  # pixels of the longer side of a grid's canvas
_STEP = 5  # percent; coarser values compress better, and the steps of the tints are multiples of it


_TOLERANCE = 60_000_000  # ns by which a ground truth may be younger than the frame beside which it is shown


@dataclass
class _Frame:
    """One moment of the page."""

    stamp_ns: int
    values: dict[str, NDArray[np.int8]] = field(default_factory=dict)  # by class, [Y, X]
    images: list[str] = field(default_factory=list)  # data URLs


class _Truths:
    """Keeps, of a recording's ground-truth grids, the newest for each of some stamps in nanoseconds."""

    def __init__(self, stamps: Sequence[int]) -> None:
        self.grids: dict[int, dict[str, NDArray[np.int8]]] = {}  # by stamp and class
        self._newest = dict.fromkeys(stamps, -1)

    def add(self, ns: int, name: str, values: NDArray[np.int8]) -> None:
        """Take one class's values `[Y, X]`, unless a newer grid is there for every frame."""
        for stamp, newest in self._newest.items():
            if newest <= ns <= stamp + _TOLERANCE:
                self._newest[stamp] = ns
        if ns in self._newest.values():
            self.grids.setdefault(ns, {})[name] = values.copy()
            self.grids = {stamp: grid for stamp, grid in self.grids.items() if stamp in self._newest.values()}


def write_report(replayed: Path, source: Path, out: Path, *, max_frames: int = 60, progress: bool = True) -> None:
    """Write the page `out` about the bag `replayed` that `bridgeta replay` made of the bag `source`.

    It shows at most `max_frames` sets, evenly spread; its latencies and tables cover all. Raises BridgeTAError when
    one of the bags is missing or they do not belong together, and when `out` is no HTML file.
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        fix = "Let its name end in .html"
        raise BridgeTAError("is not a page that can be written", where=out, fix=fix, exit_code=2)
    check_output(Path(out))
    replayed, source = Path(replayed), Path(source)
    summary = ReplaySummary.load(replayed / FILE_NAME)
    rig = Rig.load(replayed / RIG_NAME)
    if set(rig.names) != summary.cameras.keys():
        raise BridgeTAError(
            f"has the cameras {', '.join(rig.names)}, {FILE_NAME} has {', '.join(summary.cameras)}",
            where=replayed / RIG_NAME,
            fix="Replay the bag again",
        )
    grid = BevGrid(**summary.grid)
    places = np.unique(np.linspace(0, summary.used - 1, min(max_frames, summary.used)).round().astype(int))
    frames = {summary.stamps[i]: _Frame(summary.stamps[i]) for i in places}
    with open_bag(replayed) as results, open_bag(source) as inputs, progress_bar(progress) as bar:
        grid_topics = {f"{topics.BEV}/{name}" for name in CLASS_NAMES}
        image_topics = {topic: name for name, topic in summary.cameras.items()}
        source_topics = {*inputs.find_truths(), *image_topics}
        grids, images = results.count(grid_topics), inputs.count(source_topics)
        task = bar.add_task("report", total=None if grids is None or images is None else grids + images)
        for topic, _, data in results.raw(grid_topics):
            bar.advance(task)
            message = results.decode(topic, data)
            frame = frames.get(messages.stamp_to_ns(message.header))
            values = read_grid(message, grid) if frame is not None else None
            if frame is not None and values is not None:
                frame.values[topic.topic.rpartition("/")[2]] = values
        sync: Synchroniser[EncodedImage | RawImage] = Synchroniser(list(summary.cameras), round(summary.slop * 1e9))
        truths = _Truths(list(frames))
        for topic, time, data in inputs.raw(source_topics):
            bar.advance(task)
            if topic.topic in image_topics:
                _take_image(inputs, topic, time, data, image_topics, sync, frames, rig)
                continue
            try:
                message = inputs.decode(topic, data)
                stamp = messages.stamp_to_ns(message.header)
            except BridgeTAError:  # counted by the replay
                continue
            values = read_grid(message, grid)
            if values is not None:
                truths.add(stamp, topic.topic.rpartition("/")[2], values)
    complete = [frame for frame in frames.values() if frame.images and len(frame.values) == len(CLASSES)]
    if not complete:
        raise BridgeTAError(
            f"has none of the images of {replayed}", where=source, fix="Give the bag that was replayed", exit_code=2
        )
    page = _fill_page(summary, rig, grid, complete, truths.grids)
    with replace_when_done(Path(out)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _take_image(
    source: BagReader,
    topic: RecordedTopic,
    time: int,
    data: bytes,
    names: Mapping[str, str],
    sync: Synchroniser[EncodedImage | RawImage],
    frames: Mapping[int, _Frame],
    rig: Rig,
) -> None:
    """Add an image to its set; put the thumbnails of a complete set into its frame, if it has one."""
    try:
        message = source.decode(topic, data)
        stamp = read_stamp(message, time)
    except BridgeTAError:  # counted by the replay
        return
    for images in sync.add(names[topic.topic], stamp, image_from_message(message)):
        frame = frames.get(images.newest_ns)
        if frame is not None:
            frame.images = [_make_thumbnail(images.items[camera.name], camera) for camera in rig.cameras]


def _make_thumbnail(image: EncodedImage | RawImage, camera: Camera) -> str:
    reduction = next(r for r in (4, 2, 1) if r == 1 or camera.width // r >= _THUMBNAIL)
    picture = decode_image(image, (camera.width, camera.height), reduction)
    height = max(1, round(_THUMBNAIL * picture.shape[0] / picture.shape[1]))
    return _to_data_url(cv2.resize(picture, (_THUMBNAIL, height), interpolation=cv2.INTER_AREA), ".jpg")


def _to_data_url(picture: Image, kind: str) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if kind == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    encoded = cv2.imencode(kind, picture[..., ::-1], options)[1]
    return f"data:image/{'jpeg' if kind == '.jpg' else 'png'};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _pack(values: Mapping[str, NDArray[np.int8]], shape: tuple[int, int]) -> list[str]:
    """Pack occupancy values into two pictures of three classes, ahead at the top: 0 unknown, 1 + percent // 5."""
    unknown = np.full(shape, messages.UNKNOWN, dtype=np.int8)
    layers = np.stack([values.get(name, unknown) for name in CLASS_NAMES])
    levels = np.where(layers < 0, 0, 1 + layers // _STEP).astype(np.uint8)
    upright = levels.transpose(2, 1, 0)[::-1, ::-1]
    return [_to_data_url(np.ascontiguousarray(upright[..., i : i + 3]), ".png") for i in (0, 3)]


def _fill_page(
    summary: ReplaySummary,
    rig: Rig,
    grid: BevGrid,
    frames: Sequence[_Frame],
    truths: Mapping[int, Mapping[str, NDArray[np.int8]]],
) -> str:
    start = summary.stamps[0]
    used_truths: dict[int, int] = {}
    entries = []
    for frame in sorted(frames, key=lambda f: f.stamp_ns):
        earlier = [stamp for stamp in truths if stamp <= frame.stamp_ns + _TOLERANCE]
        truth = max(earlier, default=None)
        if truth is not None:
            used_truths.setdefault(truth, len(used_truths))
        position = summary.stamps.index(frame.stamp_ns)
        entries.append(
            {
                "time": (frame.stamp_ns - start) / 1e9,
                "share": (position + 0.5) / summary.used,
                "prediction": _pack(frame.values, grid.shape),
                "truth": None if truth is None else used_truths[truth],
                "age": 0.0 if truth is None else (frame.stamp_ns - truth) / 1e9,
                "images": [frame.images[i] for row in arrange(rig) for i in row],
            }
        )
    rows, columns = grid.shape
    content = {
        "classes": [{"name": cls.name.replace("_", " "), "colour": cls.colour} for cls in CLASSES],
        "order": [CLASS_NAMES.index(name) for name in PAINT_ORDER],
        "grid": {"size": [rows, columns], "x_max": grid.x_max, "y_max": grid.y_max, "y_min": grid.y_min},
        "rings": RINGS,
        "paper": PAPER,
        "steps": [(round(100 * least), opacity) for least, opacity in STEPS],
        "frames": entries,
        "truths": [_pack(truths[stamp], grid.shape) for stamp in used_truths],
    }
    scale = _VIEW / max(grid.shape)
    canvas = f'width="{round(rows * scale)}" height="{round(columns * scale)}"'
    views = [_format_view("prediction", canvas, "Prediction", "")]
    if used_truths:
        views.append(_format_view("truth", canvas, "Ground truth", "truth-note"))
    template = Template((resources.files("bridgeta_ros.bags") / "report.html").read_text(encoding="utf-8"))
    names = [rig.names[i] for row in arrange(rig) for i in row]
    return template.substitute(
        title=escape(Path(summary.source).name),
        subtitle=_format_subtitle(summary, len(entries)),
        panels=len(views),
        views="".join(views),
        columns=max(len(row) for row in arrange(rig)),
        cameras="".join(
            f'<figure><figcaption>{escape(name)}</figcaption><img alt="{escape(name)}"></figure>' for name in names
        ),
        counts=_format_counts(summary),
        notes=_format_notes(summary),
        tables=_format_stages(summary) + _format_iou(summary),
        stages="".join(
            f'<span class="key"><span class="swatch" style="background:{colour}"></span>{stage}</span>'
            for stage, colour in zip(STAGES, COLOURS, strict=False)
        ),
        chart=draw_latencies(summary.latencies, summary.stamps, _median_period_ms(summary)),
        # A closing tag inside a string would end the script.
        data=json.dumps(content, separators=(",", ":")).replace("</", "<\\/"),
    )


def _format_view(name: str, canvas: str, title: str, note: str) -> str:
    extra = f' <span id="{note}"></span>' if note else ""
    label = f"{title}, seen from above, ahead is up"
    return (
        f"<figure><figcaption>{title}{extra}</figcaption>"
        f'<canvas id="{name}" {canvas} role="img" aria-label="{label}"></canvas></figure>'
    )


def _format_subtitle(summary: ReplaySummary, shown: int) -> str:
    shown_of = f"all {shown} sets" if shown == summary.used else f"{shown} of {summary.used} sets, evenly spread"
    tints = ", ".join(f"{100 * least:.0f}" for least, _ in STEPS)
    return (
        f"Weights <code>{escape(summary.weights)}</code>, {len(summary.cameras)} cameras. Shown: {shown_of}. "
        f"Ahead is up. Tints from faint to full: at least {tints} % probable. Hatched cells are seen by no camera, or "
        "unknown."
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
