"""The images of a map: the semantic prior as the devkit reads it, the base map, and PNGs in strips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.utils.map_mask import MapMask

from bridgeta_synth.dataset.map_images import write_png
from bridgeta_synth.world.town.town import Town


def test_the_prior_shows_roads_walkways_and_car_parks(town: Town, map_root: Path) -> None:
    mask = MapMask(str(map_root / "maps" / "prior.png"))
    shown = shapely.union_all([p for name in ("drivable_area", "walkway", "carpark_area") for p in town.polygons[name]])
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, town.canvas, (3000, 2)).T
    # Not at the borders, where a cell of 10 cm is both.
    clear = ~shapely.dwithin(shapely.boundary(shown), shapely.points(x, y), 0.3)
    expected = shapely.contains_xy(shown, x, y)
    np.testing.assert_array_equal(mask.is_on_mask(x[clear], y[clear]), expected[clear])


def test_the_base_map_has_the_canvas_shape_and_north_up(town: Town, map_root: Path) -> None:
    image = cv2.imread(str(map_root / "maps" / "basemap" / f"{town.location}.png"))
    width, height = town.canvas
    assert image.shape == (round(2 * height), round(2 * width), 3)
    x, y = np.asarray(town.polygons["carpark_area"][0].representative_point().coords[0])
    pixel = image[int(2 * (height - y)), int(2 * x)].astype(int)
    # Asphalt, concrete or gravel: hardly any colour, unlike the grass around the town.
    assert np.ptp(pixel) < 40
    assert np.ptp(image[1, 1].astype(int)) > 20


@given(st.integers(1, 40), st.integers(1, 60), st.booleans(), st.integers(0, 99))
@settings(max_examples=20)
def test_a_png_in_strips_is_the_image(
    tmp_path_factory: pytest.TempPathFactory, columns: int, rows: int, is_colour: bool, seed: int
) -> None:
    shape: Any = (rows, columns, 3) if is_colour else (rows, columns)
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("png") / "x.png"
    write_png(path, (columns, rows), is_colour, np.array_split(image, min(3, rows)))
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., ::-1] if is_colour else read, image)
