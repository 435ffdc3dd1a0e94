"""Draw into camera images and bird's-eye views.

Bird's-eye views show the vehicle driving up: x forward is up, y left is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image
from bridgeta_core.geometry.rig import Camera
from bridgeta_core.geometry.transforms import Matrix, invert, transform
from bridgeta_core.utils.arrays import Bytes, Flags, Floats, Ints

Colour = tuple[int, int, int]
Wire = tuple[Colour, Sequence[Floats]]  # polylines [n, 3] in the ego frame that are drawn in one colour

NEAR = 0.5  # metres in front of a camera where lines are cut
FAR = 60.0  # metres at which the colours of points in images end
RINGS = (20.0, 35.0, 50.0)  # metres, the ranges of the evaluation
PAPER: Colour = (248, 248, 246)
INK: Colour = (40, 40, 40)
QUIET: Colour = (150, 150, 150)
NIGHT: Colour = (24, 24, 24)
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
# Small areas are drawn over large ones; and crossings over stop lines, of which networks are less sure.
PAINT_ORDER = ("drivable_area", "carpark_area", "walkway", "stop_line", "ped_crossing", "divider")


def project_lines(camera: Camera, cam_T_ego: Matrix, lines: Sequence[Floats]) -> Floats:
    """Project ego-frame polylines into a camera: segments `[m, 2, 2]` in pixels.

    They are cut at the near plane before projection, and at the image's border after it.
    """
    chains = [transform(cam_T_ego, line) for line in lines if len(line) > 1]
    if not chains:
        return np.empty((0, 2, 2))
    segments = np.concatenate([np.stack([chain[:-1], chain[1:]], axis=1) for chain in chains])
    segments = _cut(segments, segments[..., 2] - NEAR)
    homogeneous = segments @ camera.intrinsics.T
    pixels = homogeneous[..., :2] / homogeneous[..., 2:]
    for axis, last in ((0, camera.width - 1), (1, camera.height - 1)):
        pixels = _cut(pixels, pixels[..., axis] + 0.5)
        pixels = _cut(pixels, last + 0.5 - pixels[..., axis])
    return pixels


def _cut(segments: Floats, inside: Floats) -> Floats:
    """Cut segments `[m, 2, d]` to where the linear function with the end values `inside` `[m, 2]` is at least 0."""
    visible = (inside >= 0).any(axis=1)
    segments, inside = segments[visible], inside[visible]
    low, high = inside.min(axis=1), inside.max(axis=1)
    share = np.where(low < 0, high / np.where(low < 0, high - low, 1), 1)  # of the segment, from its inner end
    inner = np.take_along_axis(segments, inside.argmax(axis=1)[:, None, None], axis=1)
    outer = np.take_along_axis(segments, 1 - inside.argmax(axis=1)[:, None, None], axis=1)
    return np.concatenate([inner, inner + share[:, None, None] * (outer - inner)], axis=1)


def draw_map(image: Image, camera: Camera, lines: Mapping[str, Sequence[Floats]], thickness: int = 2) -> None:
    """Draw ego-frame polylines per class into an image of the camera, or into a resized copy of it, in place."""
    cam_T_ego = invert(camera.ego_T_cam)
    scale = image.shape[1] / camera.width
    for name in PAINT_ORDER:
        segments = project_lines(camera, cam_T_ego, lines.get(name, ()))
        corners = list(_to_fixed_point(segments, scale))
        # With a pale edge, as a dark line would not show on asphalt.
        cv2.polylines(image, corners, False, PAPER, thickness + 1, cv2.LINE_AA, _SHIFT)
        cv2.polylines(image, corners, False, _colour(name), thickness, cv2.LINE_AA, _SHIFT)


def draw_wires(image: Image, camera: Camera, wires: Sequence[Wire]) -> None:
    """Draw ego-frame polylines in their colours into an image of the camera, or a resized copy, in place."""
    cam_T_ego = invert(camera.ego_T_cam)
    scale = image.shape[1] / camera.width
    for colour, lines in wires:
        corners = _to_fixed_point(project_lines(camera, cam_T_ego, lines), scale)
        cv2.polylines(image, list(corners), False, colour, 1, cv2.LINE_AA, _SHIFT)


def draw_points(image: Image, camera: Camera, points: NDArray[np.floating]) -> None:
    """Draw ego-frame LiDAR points into an image of the camera, or a resized copy, in place: near red, far blue."""
    local = transform(invert(camera.ego_T_cam), points[:, :3])
    local = local[local[:, 2] > NEAR]
    pixels = local @ camera.intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    inside = ((pixels > -0.5) & (pixels < (camera.width - 0.5, camera.height - 0.5))).all(axis=1)
    order = np.argsort(-local[inside, 2])  # near points over far ones
    centres = _to_fixed_point(pixels[inside][order], image.shape[1] / camera.width)
    colours = colour_depths(local[inside][order, 2])
    for centre, colour in zip(centres.tolist(), colours.tolist(), strict=True):
        cv2.circle(image, centre, 1 << _SHIFT, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def colour_depths(depth: NDArray[np.floating]) -> Bytes:
    """Colour distances in metres: RGB `[n, 3]`, near is red, FAR and beyond blue."""
    return apply_turbo(1 - 0.9 * np.sqrt(np.clip(depth / FAR, 0, 1)))  # the blue end itself is nearly black


def paint_cells(picture: Image, grid: BevGrid, side: int) -> Image:
    """Enlarge a picture with a pixel per cell, forward up, and draw range rings and the vehicle into it.

    The longer side becomes `side` pixels.
    """
    size = _view_size(grid, side)
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if size[0] > grid.shape[0] else cv2.INTER_AREA)
    _draw_vehicle(picture, grid)
    return picture


def paint_points(points: NDArray[np.floating], grid: BevGrid, side: int, wires: Sequence[Wire] = ()) -> Image:
    """Paint ego-frame points from above, coloured by height from -1 m (blue) to 4 m (red), and coloured polylines."""
    width, height = _view_size(grid, side)
    canvas = np.full((height, width, 3), NIGHT, dtype=np.uint8)
    pixels, inside = find_pixels(points, grid, (width, height))
    order = np.argsort(points[inside, 2])  # high points over low ones
    u, v = pixels[order].T
    canvas[v, u] = apply_turbo(np.clip((points[inside, 2][order] + 1) / 5, 0, 1))
    for colour, lines in wires:
        corners = [_to_fixed_point(grid.to_pixels(line, (width, height))) for line in lines]
        cv2.polylines(canvas, corners, False, colour, 1, cv2.LINE_AA, _SHIFT)
    _draw_vehicle(canvas, grid, ink=PAPER, paper=NIGHT)
    return canvas


def _view_size(grid: BevGrid, side: int) -> tuple[int, int]:
    """Return width and height in pixels: y runs along the width, x along the height."""
    rows, columns = grid.shape
    scale = side / max(rows, columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def find_pixels(points: NDArray[np.floating], grid: BevGrid, size: tuple[int, int]) -> tuple[Ints, Flags]:
    """Find the pixels `[m, 2]` (u, v) that ego-frame points `[n, 2 + k]` fall into in a view of `size` (width, height).

    The second result tells which of the n points those are; the others lie beside the view.
    """
    pixels = np.floor(grid.to_pixels(points, size) + 0.5).astype(np.int64)
    inside = ((pixels >= 0) & (pixels < size)).all(axis=1)
    return pixels[inside], inside


def _draw_vehicle(picture: Image, grid: BevGrid, ink: Colour = INK, paper: Colour = PAPER) -> None:
    """Draw range rings around the ego origin, and an arrowhead of the vehicle's size that points forward."""
    height, width = picture.shape[:2]
    circle = np.linspace(0, 2 * np.pi, 181)
    lines = [radius * np.stack([np.cos(circle), np.sin(circle)], axis=1) for radius in RINGS]
    corners = [_to_fixed_point(grid.to_pixels(line, (width, height))) for line in lines]
    cv2.polylines(picture, corners, True, QUIET, 1, cv2.LINE_AA, _SHIFT)
    for radius in RINGS:
        u, v = grid.to_pixels(np.array([[radius * np.cos(0.6), radius * np.sin(0.6)]]), (width, height))[0]
        if 0 <= u < width and 0 <= v < height:
            text, place = f"{radius:.0f} m", (int(u) + 2, int(v) - 2)
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, paper, 3, cv2.LINE_AA)
            write(picture, text, place, 0.4, ink)
    # The ego origin of nuScenes is on the rear axle of a car of 4.1 x 1.7 m.
    car = np.array([(3.1, 0), (-1, 0.95), (-0.4, 0), (-1, -0.95)])
    cv2.fillPoly(picture, [_to_fixed_point(grid.to_pixels(car, (width, height)))], ink, cv2.LINE_AA, _SHIFT)


def write(picture: Image, text: str, at: tuple[int, int], size: float = 0.5, colour: Colour = INK) -> None:
    """Write a line of text in place; `at` is the left end of its base line in pixels."""
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def apply_turbo(values: NDArray[np.floating]) -> Bytes:
    """Colour values in [0, 1] from blue to red: RGB `[n, 3]`."""
    scale = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
    return scale[np.round(np.asarray(values) * 255).astype(np.uint8)]


def _to_fixed_point(pixels: Floats, scale: float = 1.0) -> NDArray[np.int32]:
    """Convert pixels to fixed-point coordinates for OpenCV, in an image resized by `scale`."""
    resized = (pixels + 0.5) * scale - 0.5
    return np.round(resized * (1 << _SHIFT)).astype(np.int32)


def _colour(name: str) -> Colour:
    return CLASSES[CLASS_NAMES.index(name)].colour
