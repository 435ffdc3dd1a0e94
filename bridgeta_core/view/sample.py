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
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.coverage import find_remarks, measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image, fit_images
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import invert, transform
from bridgeta_core.utils.arrays import Floats
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import check_output, replace_when_done
from bridgeta_core.view.drawing import (
    FAR,
    PAPER,
    QUIET,
    RINGS,
    STEPS,
    Colour,
    Wire,
    colour_depths,
    draw_map,
    draw_points,
    draw_wires,
    paint_bev,
    paint_points,
    tint,
    write,
)

if TYPE_CHECKING:
    from bridgeta_core.data.maps.raster import MapRaster
    from bridgeta_core.data.sample import Sample


_FORMATS = (".png", ".jpg", ".jpeg")
GAP = 12  # pixels between the parts of a picture
# By the first part of a box's category; "other" for those without a colour.
_BOX_COLOURS: dict[str, Colour] = {"vehicle": (255, 158, 0), "human": (60, 120, 255), "other": (200, 200, 200)}


@dataclass(frozen=True, eq=False)
class Scenery:
    """Everything that can be drawn of a sample, in its ego frame. What is None is left out.

    `lines` are polylines `[n, 3]` per class name, `boxes` the wire frames of annotated objects, and `points`
    `[n, 3 + k]` from the LiDAR. `ground` returns heights `[n]` of the ground at positions `[n, 2]`. `truth` and
    `prediction` are `[6, Y, X]` in [0, 1] on `grid`; `known` `[6]` marks the classes that the map knows.
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


def draw_sample(scenery: Scenery, title: str = "", width: int = 1920, points_in_cameras: bool = True) -> Image:
    """Draw a sample as one picture `[H, width, 3]` RGB.

    The cameras are at the top as mounted on the vehicle, the bird's-eye views and a legend below.
    """
    rows = arrange(scenery.rig)
    cell = min((width - GAP) // max(len(row) for row in rows) - GAP, width // 2)
    strips = []
    for row in rows:
        cells = [_draw_camera(scenery, i, cell, points_in_cameras) for i in row]
        strips.append(place_in_row(cells, width))
    views: list[tuple[str, Image]] = []
    panels = sum(v is not None for v in (scenery.prediction, scenery.truth, scenery.points))
    side = min((width - GAP) // (panels + 1) - GAP, 620)
    if scenery.prediction is not None:
        views.append(("prediction", paint_bev(scenery.prediction, scenery.grid, side)))
    if scenery.truth is not None:
        views.append(("ground truth (map)", paint_bev(scenery.truth, scenery.grid, side)))
    if scenery.points is not None:
        views.append(("LiDAR, colour = height", paint_points(scenery.points, scenery.grid, side, scenery.boxes)))
    boxes = [add_caption(view, name) for name, view in views]
    used = GAP + sum(box.shape[1] + GAP for box in boxes)
    height = max((box.shape[0] for box in boxes), default=240)
    boxes.append(_draw_legend(scenery, title, width - used - GAP, height))
    strips.append(place_in_row(boxes, width))
    return np.concatenate(strips)


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
    for c, known in zip(CLASSES, scenery.known, strict=True):
        swatch = box[y - 15 : y + 3, 8:38]
        tints = [tint(c.colour, opacity) for _, opacity in STEPS] if scenery.prediction is not None else [c.colour]
        for third, shade in zip(np.array_split(swatch, len(tints), axis=1), tints, strict=True):
            third[:] = shade if known else PAPER
        if not known:
            for x in range(-20, 40, 6):
                cv2.line(swatch, (x, 20), (x + 20, 0), c.colour, 1, cv2.LINE_AA)
        cv2.rectangle(box, (8, y - 15), (38, y + 3), QUIET, 1)
        write(box, c.name + ("" if known else ": not in this map, unknown"), (48, y))
        y += 28
    y += 8
    if scenery.prediction is not None:
        write(box, f"tints: {', '.join(f'{least:.0%}' for least, _ in STEPS)} probable", (8, y), 0.45)
        y += 26
    if scenery.points is not None:
        box[y - 12 : y + 2, 8:158] = colour_depths(np.linspace(0, FAR, 150))
        write(box, f"LiDAR in cameras: 0 to {FAR:.0f} m", (166, y), 0.45)
        y += 26
    write(box, f"rings: {', '.join(f'{r:.0f}' for r in RINGS)} m; up is forward", (8, y), 0.45)
    return box


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
    grid, model, prediction = BevGrid(), StudentConfig(), None
    if weights is not None:
        from bridgeta_core.deploy.runtime import Runtime

        runtime = Runtime(weights)
        grid, model, rig = runtime.grid, runtime.info.model, chosen.rig(runtime.info.cameras)
        inputs = [
            chosen.record(name).read_image(fit=fit) for name, fit in zip(rig.names, runtime.fits(rig), strict=True)
        ]
        prediction = runtime.infer(np.stack(inputs), rig)
    scenery = replace(
        read_scenery(chosen, raster, grid),
        boxes=_read_wires(root, version, chosen.token, chosen.global_T_ego) if boxes else (),
        prediction=prediction,
    )
    title = f"{chosen.scene}, {chosen.location}\nsample {chosen.token}"
    picture = draw_sample(scenery, title, points_in_cameras=points_in_cameras)
    write_picture(picture, out)
    rig, lift = chosen.rig(chosen.camera_names), model.lift
    fits = list(fit_images(rig, model.image.size, model.image.margin).values())
    return find_remarks(measure_coverage(rig, fits, grid, lift.depth_min, lift.depth_max))


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
