from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError


@st.composite
def grids(draw):
    """Grids of any extent, square or not, centred on the vehicle or not."""
    resolution = draw(st.sampled_from([0.1, 0.25, 0.4, 0.5, 1.0, 3.2]))
    columns, rows = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    x, y = draw(st.integers(-400, 400)) * resolution, draw(st.integers(-400, 400)) * resolution
    return BevGrid(x, x + columns * resolution, y, y + rows * resolution, resolution), (rows, columns)


def test_the_default_is_the_protocols():
    grid = BevGrid()
    assert grid.shape == (200, 200)
    x, y = grid.centres()
    assert (x[0], x[-1], y[0], y[-1]) == (-49.75, 49.75, -49.75, 49.75)


@given(grids())
def test_rows_go_along_y_and_columns_along_x(case):
    grid, shape = case
    x, y = grid.centres()
    assert grid.shape == shape == (len(y), len(x))
    np.testing.assert_allclose(np.diff(x), grid.resolution)
    assert x[0] == pytest.approx(grid.x_min + grid.resolution / 2)
    assert y[-1] == pytest.approx(grid.y_max - grid.resolution / 2)


@given(grids(), st.data())
def test_the_centre_of_a_cell_is_half_a_cell_into_it(case, data):
    grid, (rows, columns) = case
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    x, y = grid.centres()
    np.testing.assert_allclose(grid.to_cells(np.array([x[column], y[row]])), (column + 0.5, row + 0.5), atol=1e-6)


@given(grids(), st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=5))
def test_metres_to_cells_and_back(case, points):
    grid, _ = case
    np.testing.assert_allclose(grid.to_metres(grid.to_cells(np.array(points))), points, atol=1e-9)


def test_ranges_are_measured_from_the_vehicle_to_the_centres():
    grid = BevGrid(0, 4, -2, 2, 2.0)
    near, far = math.hypot(1, 1), math.hypot(3, 1)
    np.testing.assert_allclose(grid.ranges(), [[near, far], [near, far]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-50, 50, -50, 50, 0), "positive resolution"),
        ((-50, 50, -50, 50, -1), "positive resolution"),
        ((-50, math.nan, -50, 50, 1), "finite bounds"),
        ((-50, math.inf, -50, 50, 1), "finite bounds"),
        ((-50, 50.2, -50, 50, 0.5), "x from -50 to 50.2 m is not a whole number of 0.5 m cells"),
        ((-50, 50, 50, -50, 0.5), "y from 50 to -50 m is not a whole number"),
        ((-50, -50, -50, 50, 0.5), "x from"),
    ],
)
def test_an_impossible_grid_is_refused(arguments, message):
    with pytest.raises(BridgeTAError, match=message) as error:
        BevGrid(*arguments)
    assert error.value.exit_code == 2


def test_an_extent_that_binary_fractions_miss_is_accepted():
    assert BevGrid(-51.2, 51.2, -51.2, 51.2, 0.4).shape == (256, 256)


def test_a_view_shows_cells_with_forward_up_and_left_left():
    grid = BevGrid(-20, 40, -15, 15, 0.5)
    rows, columns = grid.shape
    x, y = grid.centres()
    row, column = np.mgrid[:rows, :columns].reshape(2, -1)
    pixels = grid.to_pixels(np.stack([x[column], y[row]], axis=1), (rows, columns))
    np.testing.assert_allclose(pixels, np.stack([rows - 1 - row, columns - 1 - column], axis=1), atol=1e-9)


@pytest.mark.parametrize(
    "values",
    [(-5e4, 5e4, -5e4, 5e4, 0.5), (0, 1e300, 0, 1e300, 1e-10), (1e300, 0, 1e300, 0, 1e-10), (0, 5e6, 0, 1, 1.0)],
)
def test_a_grid_of_more_cells_than_memory_holds_is_refused(values):
    with pytest.raises(BridgeTAError, match="more than 4,194,304 cells"):
        BevGrid(*values)
