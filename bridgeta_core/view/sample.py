"""Draw a sample: its cameras with the map and the LiDAR, and bird's-eye views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LabelConfig, StudentConfig
from bridgeta_core.geometry.classes import CLASSES, THRESHOLD
from bridgeta_core.geometry.coverage import find_remarks, measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image, fit_images
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import invert, transform
from bridgeta_core.utils.arrays import Flags, Floats
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import check_output, replace_when_done
from bridgeta_core.view.bev import ERROR_COLOURS, OPACITIES, find_errors, hatch, paint_bev, paint_errors, tint
from bridgeta_core.view.drawing import (
    FAR,
    PAPER,
    QUIET,
    RINGS,
    Colour,
    Wire,
    colour_depths,
    draw_map,
    draw_points,
    draw_wires,
    paint_points,
    write,
)

if TYPE_CHECKING:
    from bridgeta_core.data.maps.raster import MapRaster
    from bridgeta_core.data.sample import Sample


_FORMATS = (".png", ".jpg", ".jpeg")
GAP = 12  # pixels between the parts of a picture
_LEGEND = (400, 360)  # pixels at least
# By the first part of a box's category; "other" for those without a colour.
_BOX_COLOURS: dict[str, Colour] = {"vehicle": (255, 158, 0), "human": (60, 120, 255), "other": (200, 200, 200)}


@dataclass(frozen=True, eq=False)
class Scenery:
    """Everything that can be drawn of a sample, in its ego frame. What is None is left out.

    `lines` are polylines `[n, 3]` per class name, `boxes` the wire frames of annotated objects, and `points`
    `[n, 3 + k]` from the LiDAR. `ground` returns heights `[n]` of the ground at positions `[n, 2]`. `truth` and
    `prediction` are `[6, Y, X]` in [0, 1] on `grid`; `known` `[6]` marks the classes that the map knows, `thresholds`
    are those of the prediction, and `seen` `[Y, X]` marks the cells that its cameras see.
    """

    rig: Rig
    images: Sequence[Image]
    grid: BevGrid
    lines: Mapping[str, Sequence[Floats]] | None = None
    boxes: Sequence[Wire] = ()
    points: NDArray[np.floating] | None = None
    ground: Callable[[NDArray[np.floating]], Floats] | None = None
    truth: NDArray[np.generic] | None = None
    prediction: NDArray[np.generic] | None = None
    known: Sequence[bool] = (True,) * len(CLASSES)
    thresholds: Sequence[float] | None = None
    seen: Flags | None = None


def draw_sample(scenery: Scenery, title: str = "", width: int = 1920, points_in_cameras: bool = True) -> Image:
    """Draw a sample as one picture `[H, width, 3]` RGB.

    The cameras are at the top as mounted on the vehicle, the bird's-eye views and a legend below.
    """
    rows = arrange(scenery.rig)
    cell = min((width - GAP) // max(len(row) for row in rows) - GAP, width // 2)
    strips = []
    for cameras in rows:
        strips.append(place_in_row([_draw_camera(scenery, i, cell, points_in_cameras) for i in cameras], width))
    side = (width - GAP) // 3 - GAP
    boxes = [add_caption(view, name) for name, view in _paint_views(scenery, side)]
    row: list[Image] = []
    left = width - GAP  # what the row still has room for
    for box in boxes:
        if box.shape[1] + GAP > left:
            strips.append(place_in_row(row, width))
            row, left = [], width - GAP
        row.append(box)
        left -= box.shape[1] + GAP
    if left < _LEGEND[0] + GAP:
        strips.append(place_in_row(row, width))
        row, left = [], width - GAP
    height = max([_LEGEND[1], *(box.shape[0] for box in row)])
    strips.append(place_in_row([*row, _draw_legend(scenery, title, left - GAP, height)], width))
    return np.concatenate(strips)


def _paint_views(scenery: Scenery, side: int) -> list[tuple[str, Image]]:
    """Paint what there is from above: prediction, ground truth, what is wrong, LiDAR."""
    grid, prediction, truth = scenery.grid, scenery.prediction, scenery.truth
    views: list[tuple[str, Image]] = []
    if prediction is not None:
        views.append(("prediction", paint_bev(prediction, grid, side, scenery.thresholds, scenery.seen)))
    if truth is not None:
        views.append(("ground truth (map)", paint_bev(truth, grid, side)))
    if prediction is not None and truth is not None:
        learned = ~np.isnan(np.asarray(prediction, dtype=np.float32)).all(axis=(1, 2))
        errors = find_errors(prediction, truth, scenery.thresholds, (learned & scenery.known).tolist())
        views.append(("what is wrong", paint_errors(errors, grid, side, scenery.seen)))
    if scenery.points is not None:
        views.append(("LiDAR, colour = height", paint_points(scenery.points, grid, side, scenery.boxes)))
    return views


def arrange(rig: Rig) -> list[list[int]]:
    """Arrange the positions of the cameras in rows: those that look forward, then those that look back.

    Each row goes from the vehicle's left to its right and has at most four.
    """
    axes = [camera.ego_T_cam[:2, 2] for camera in rig.cameras]  # the optical axis in the ground plane
    azimuth = np.degrees([np.arctan2(y, x) for x, y in axes])
    front = sorted((i for i in range(len(azimuth)) if abs(azimuth[i]) < 90), key=lambda i: -azimuth[i])
    back = sorted((i for i in range(len(azimuth)) if abs(azimuth[i]) >= 90), key=lambda i: azimuth[i] % 360)
    return [row[i : i + 4] for row in (front, back) for i in range(0, len(row), 4)]


def _draw_camera(scenery: Scenery, i: int, width: int, with_points: bool) -> Image:
    camera = scenery.rig.cameras[i]
    size = (width, max(1, round(width * camera.height / camera.width)))
    picture = cv2.resize(scenery.images[i], size, interpolation=cv2.INTER_AREA)
    if with_points and scenery.points is not None:
        draw_points(picture, camera, scenery.points)
    if scenery.lines is not None:
        draw_map(picture, camera, scenery.lines)
    draw_wires(picture, camera, scenery.boxes)
    return add_caption(picture, camera.name)


def _draw_legend(scenery: Scenery, title: str, width: int, height: int) -> Image:
    box = np.full((height, max(width, 1), 3), PAPER, dtype=np.uint8)
    y = 28
    for line in title.splitlines():
        write(box, line, (8, y))
        y += 22
    y += 12
    for number, (c, known) in enumerate(zip(CLASSES, scenery.known, strict=True)):
        learned = scenery.prediction is None or not np.isnan(np.asarray(scenery.prediction[number], np.float32)).all()
        _draw_swatch(box[y - 15 : y + 3, 8:38], c.colour, scenery.prediction is not None, known and learned)
        remark = "" if known else ": not in this map, unknown"
        write(box, c.name + (remark if learned else ": not in the training data, unknown"), (48, y))
        y += 28
    y += 8
    if scenery.prediction is not None:
        thresholds = scenery.thresholds or (THRESHOLD,) * len(CLASSES)
        low, high = (f"{100 * t:.0f}" for t in (min(thresholds), max(thresholds)))
        shown = f"from {low} % on" if low == high else f"from {low} to {high} % on, by class"
        write(box, f"shown {shown}; the paler, the less sure", (8, y), 0.45)
        y += 26
    if scenery.prediction is not None and scenery.truth is not None:
        x = 8
        for name, colour in ERROR_COLOURS.items():
            _draw_swatch(box[y - 15 : y + 3, x : x + 30], colour)
            write(box, name, (x + 36, y), 0.45)
            x += 112
        y += 26
    if scenery.seen is not None and not scenery.seen.all():
        hatch(box[y - 15 : y + 3, 8:38], np.ones((18, 30), dtype=np.bool_))
        write(box, "seen by no camera", (48, y), 0.45)
        y += 26
    if scenery.points is not None:
        box[y - 12 : y + 2, 8:158] = colour_depths(np.linspace(0, FAR, 150))
        write(box, f"LiDAR in cameras: 0 to {FAR:.0f} m", (166, y), 0.45)
        y += 26
    write(box, f"rings: {', '.join(f'{r:.0f}' for r in RINGS)} m; up is forward", (8, y), 0.45)
    return box


def _draw_swatch(swatch: Image, colour: Colour, shades: bool = False, known: bool = True) -> None:
    """Fill a swatch with a colour, or with its shades within an outline; hatch that of an unknown class."""
    swatch[:] = colour if known else PAPER
    if shades and known:
        for part, opacity in zip(np.array_split(swatch[3:-3, 3:-3], len(OPACITIES), axis=1), OPACITIES, strict=True):
            part[:] = tint(colour, opacity)
    if not known:
        for x in range(-20, 40, 6):
            cv2.line(swatch, (x, 20), (x + 20, 0), colour, 1, cv2.LINE_AA)
    cv2.rectangle(swatch, (0, 0), (swatch.shape[1] - 1, swatch.shape[0] - 1), QUIET, 1)


def add_caption(picture: Image, text: str) -> Image:
    """Put a line of text above a picture."""
    strip = np.full((24, picture.shape[1], 3), PAPER, dtype=np.uint8)
    write(strip, text, (2, 17))
    return np.concatenate([strip, picture])


def place_in_row(boxes: Sequence[Image], width: int) -> Image:
    """Place boxes in a row on paper of `width`, with gaps around them."""
    height = max(box.shape[0] for box in boxes)
    paper = np.full((height + GAP, width, 3), PAPER, dtype=np.uint8)
    x = GAP
    for box in boxes:
        paper[: box.shape[0], x : x + box.shape[1]] = box
        x += box.shape[1] + GAP
    return paper


def write_sample_picture(
    root: str | Path,
    version: str,
    sample: str | None,
    out: Path,
    *,
    weights: str | Path | None = None,
    points_in_cameras: bool = True,
    boxes: bool = False,
    source: str = "nuscenes",
) -> list[str]:
    """Write the picture of a sample of a dataset, with the prediction of `weights` when they are given.

    `out` ends in .png or .jpg. `sample` is a token, the beginning of one, or a position; None takes the first. `boxes`
    draws the annotated objects too. `source` is what reads the root (see `open_dataset`). Returns remarks on the
    cameras' calibration. Raises BridgeTAError when something is missing or broken.
    """
    check_format(out)
    from bridgeta_core.data.dataset import open_dataset

    dataset = open_dataset(source, root, version)
    chosen = dataset[dataset.find(sample or "0")]
    raster = dataset.raster(chosen.location, LabelConfig())
    grid, model, names = BevGrid(), StudentConfig(), chosen.camera_names
    prediction = thresholds = None
    if weights is not None:
        from bridgeta_core.deploy.runtime import Runtime

        runtime = Runtime(weights)
        grid, model, names = runtime.grid, runtime.info.model, runtime.info.cameras
        rig = chosen.rig(names)
        inputs = [
            chosen.record(name).read_image(fit=fit) for name, fit in zip(rig.names, runtime.fits(rig), strict=True)
        ]
        prediction, thresholds = runtime.infer(np.stack(inputs), rig), runtime.info.thresholds
    rig, lift = chosen.rig(names), model.lift
    fits = list(fit_images(rig, model.image.size, model.image.margin).values())
    coverage = measure_coverage(rig, fits, grid, lift.depth_min, lift.depth_max)
    scenery = replace(
        read_scenery(chosen, raster, grid),
        boxes=_read_wires(root, version, chosen.token, chosen.global_T_ego) if boxes else (),
        prediction=prediction,
        thresholds=thresholds,
        seen=np.any([view.seen for view in coverage], axis=0) if weights is not None else None,
    )
    title = f"{chosen.scene}, {chosen.location}\nsample {chosen.token}"
    picture = draw_sample(scenery, title, points_in_cameras=points_in_cameras)
    write_picture(picture, out)
    return find_remarks(coverage)


def read_scenery(sample: Sample, raster: MapRaster, grid: BevGrid, width: int | None = None) -> Scenery:
    """Read the cameras of a sample, posed at their own stamps, its LiDAR, and its map on `grid`.

    The map's lines lie on the ground that the LiDAR shows. With `width`, images are decoded at the coarsest scale that
    leaves them that wide. Raises BridgeTAError that names a missing or broken file.
    """
    from bridgeta_core.data.pointcloud import move, read_lidar
    from bridgeta_core.data.sample import LIDAR
    from bridgeta_core.view.ground import GroundHeight

    ego, cameras, images = sample.global_T_ego, [], []
    for camera in sample.rig(sample.camera_names).cameras:
        record = sample.record(camera.name)
        cameras.append(replace(camera, ego_T_cam=invert(ego) @ record.global_T_ego @ camera.ego_T_cam))
        reduction = next(r for r in (4, 2, 1) if r == 1 or (width is not None and camera.width >= r * width))
        images.append(record.read_image(reduction=reduction))
    points = ground = None
    if LIDAR in sample.records:
        lidar = sample.record(LIDAR)
        points = move(lidar.ego_T_sensor, read_lidar(lidar.path))
        ground = GroundHeight(points)
    return Scenery(
        rig=Rig(tuple(cameras)),
        images=images,
        grid=grid,
        lines=raster.polylines(ego, FAR, ground),
        points=points,
        ground=ground,
        truth=raster.rasterise(ego, grid),
        known=raster.known,
    )


def check_format(out: Path) -> None:
    """Raise BridgeTAError (exit code 2) for a file name that is not .png or .jpg, and as `check_output`."""
    if out.suffix.lower() not in _FORMATS:
        raise BridgeTAError(
            "is not a picture that can be written", where=out, fix="Let its name end in .png or .jpg", exit_code=2
        )
    check_output(out)


def write_picture(picture: Image, out: Path) -> None:
    """Write an RGB picture, whole or not at all; `out` ends in .png or .jpg."""
    encoded = cv2.imencode(out.suffix.lower(), picture[..., ::-1])[1]
    with replace_when_done(out) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _read_wires(root: str | Path, version: str, sample: str, global_T_ego: Floats) -> list[Wire]:
    """Read the annotated boxes of a sample as wire frames in the ego frame."""
    from bridgeta_core.view.boxes import read_boxes

    ego_T_global = invert(global_T_ego)
    wires: list[Wire] = []
    for box in read_boxes(root, version, sample):
        colour = _BOX_COLOURS.get(box.category.split(".")[0], _BOX_COLOURS["other"])
        wires.append((colour, [transform(ego_T_global, line) for line in box.edges()]))
    return wires
