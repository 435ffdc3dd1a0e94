"""Draw random samples of a dataset on one page, to see at a glance whether labels and images agree."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import Sample
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view.bev import paint_bev
from bridgeta_core.view.drawing import INK, PAPER, QUIET, draw_map, find_pixels, write
from bridgeta_core.view.sample import (
    GAP,
    Scenery,
    add_caption,
    arrange,
    check_format,
    place_in_row,
    read_scenery,
    write_picture,
)

_COLUMNS = 2  # samples beside each other
_CAMERA = 208  # pixels, the width of a camera's image
_SIDE = 240  # pixels, the least side of the view from above
_LOW, _HIGH = 0.4, 3.0  # metres above the ground: the points that are drawn stand on the road or beside it


def write_contact_sheet(
    root: str | Path,
    version: str,
    out: Path,
    *,
    count: int = 12,
    seed: int = 0,
    scenes: str = "all",
    source: str = "nuscenes",
) -> None:
    """Write a sheet of `count` random samples of `scenes`, or of all when there are fewer, in order of time.

    A sample has its cameras with the map's lines, and its labels with the LiDAR points above the ground. The same seed
    chooses the same samples. `out` ends in .png or .jpg. Raises BridgeTAError when something is missing or broken.
    """
    check_format(out)
    if count < 1:
        raise BridgeTAError(f"count is {count}, it must be 1 or more", exit_code=2)
    dataset = open_dataset(source, root, version)
    positions = dataset.select(scenes)
    if not positions:
        raise BridgeTAError(f"scenes {scenes!r} hold no samples", where=dataset.root, exit_code=2)
    chosen = sorted(random.Random(seed).sample(positions, min(count, len(positions))))
    descriptions = {scene.name: scene.description for scene in dataset.scenes}
    maps: dict[str, MapRaster] = {}
    tiles = []
    for position in track(chosen, description="Drawing samples"):
        sample = dataset[position]
        if sample.location not in maps:
            maps[sample.location] = dataset.raster(sample.location, LabelConfig())
        scenery = read_scenery(sample, maps[sample.location], BevGrid(), _CAMERA)
        tiles.append(_draw_tile(scenery, _write_caption(sample, descriptions[sample.scene])))
    name = " ".join((dataset.root.name, version)).strip()
    title = f"{name}: {len(chosen)} of {len(positions)} samples, seed {seed}"
    write_picture(lay_out(tiles, title), out)


def lay_out(tiles: list[Image], title: str) -> Image:
    """Lay out tiles on a page under a title and the classes' colours."""
    widest = max(tile.shape[1] for tile in tiles)
    columns = min(_COLUMNS, len(tiles))
    width = columns * (widest + GAP) + GAP
    rows = [place_in_row(tiles[i : i + columns], width) for i in range(0, len(tiles), columns)]
    return np.concatenate([_draw_heading(title, width), *rows])


def _draw_heading(title: str, width: int) -> Image:
    paper = np.full((62, width, 3), PAPER, dtype=np.uint8)
    write(paper, title, (GAP, 22), 0.6)
    x = GAP
    for c in CLASSES:
        paper[36:50, x : x + 22] = c.colour
        cv2.rectangle(paper, (x, 36), (x + 22, 50), QUIET, 1)
        write(paper, c.name, (x + 28, 48), 0.45)
        x += 28 + cv2.getTextSize(c.name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0] + 18
    return paper


def _write_caption(sample: Sample, description: str) -> str:
    """Name scene, city, light, weather (by the scene's description) and token."""
    words = description.lower()
    conditions = ["night" if "night" in words else "day", *(["rain"] if "rain" in words else [])]
    return f"{sample.scene}, {sample.location}, {', '.join(conditions)}, {sample.token}"


def _draw_tile(scenery: Scenery, caption: str) -> Image:
    """Draw the cameras as mounted on the vehicle, and beside them the labels from above."""
    rows = arrange(scenery.rig)
    cells = [[_draw_camera(scenery, i) for i in row] for row in rows]
    width = max(len(row) for row in cells) * (_CAMERA + 2)
    strips = []
    for row in cells:
        strip = np.full((max(cell.shape[0] for cell in row) + 2, width, 3), PAPER, dtype=np.uint8)
        for column, cell in enumerate(row):
            strip[: cell.shape[0], column * (_CAMERA + 2) :][:, :_CAMERA] = cell
        strips.append(strip)
    cameras = np.concatenate(strips)
    side = max(cameras.shape[0], _SIDE)
    cameras = cv2.copyMakeBorder(cameras, 0, side - len(cameras), 0, 4, cv2.BORDER_CONSTANT, value=PAPER)
    above = _draw_labels(scenery, side)
    above = cv2.copyMakeBorder(above, 0, side - len(above), 0, side - above.shape[1], cv2.BORDER_CONSTANT, value=PAPER)
    unknown = [c.name for c, known in zip(CLASSES, scenery.known, strict=True) if not known]
    text = caption + (f"; unknown: {', '.join(unknown)}" if unknown else "")
    tile = np.concatenate([cameras, above], axis=1)
    missing = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0] + 4 - tile.shape[1]
    return add_caption(cv2.copyMakeBorder(tile, 0, 0, 0, max(missing, 0), cv2.BORDER_CONSTANT, value=PAPER), text)


def _draw_camera(scenery: Scenery, i: int) -> Image:
    camera = scenery.rig.cameras[i]
    size = (_CAMERA, max(1, round(_CAMERA * camera.height / camera.width)))
    picture = cv2.resize(scenery.images[i], size, interpolation=cv2.INTER_AREA)
    draw_map(picture, camera, scenery.lines or {}, thickness=1)
    return picture


def _draw_labels(scenery: Scenery, side: int) -> Image:
    assert scenery.truth is not None
    picture = paint_bev(scenery.truth, scenery.grid, side)
    if scenery.points is not None and scenery.ground is not None:
        height = scenery.points[:, 2] - scenery.ground(scenery.points[:, :2])
        standing = scenery.points[(height > _LOW) & (height < _HIGH)]
        u, v = find_pixels(standing, scenery.grid, (picture.shape[1], picture.shape[0]))[0].T
        picture[v, u] = INK
    return picture
