"""The node on the graph of vehicles with other lenses, crops and mistakes in their calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid

OK, WARN = 0, 1
COEFFICIENTS = (0.05, -0.01, 0.0, 0.0)


def test_fisheye_cameras_make_grids(bench: Any) -> None:
    from ros_bench import RIG, K, cells

    half = K * ((0.5,), (0.5,), (1,))
    rig = Rig(tuple(Camera(c.name, 160, 120, half, c.ego_T_cam, COEFFICIENTS, "equidistant") for c in RIG.cameras))
    node = bench.start()
    vehicle = bench.vehicle(rig)
    bench.drive(vehicle, lambda: bench.listener.grids["/bev/drivable_area"], brightness=51)
    values = cells(bench.listener.grids["/bev/drivable_area"][-1])
    assert set(np.unique(values)) == {-1, 20}
    assert values[8, 19] == values[8, 0] == 20  # ahead and behind
    bench.until(lambda: bench.listener.status("calibration")[0] == OK)
    assert "of the grid" in bench.listener.status("calibration")[2]["cam_back coverage"]
    assert [c.distortion_model for c in node._calibration.rig.cameras] == ["equidistant"] * 2


def test_a_camera_that_sees_nothing_is_named_in_diagnostics(bench: Any) -> None:
    from ros_bench import RIG

    sky = replace(RIG.cameras[1], ego_T_cam=rigid((0, 0, 1.5), (1, 0, 0, 0)))
    bench.start()
    vehicle = bench.vehicle(Rig((RIG.cameras[0], sky)))
    bench.drive(vehicle, lambda: bench.listener.status("calibration")[0] == WARN)
    _, message, values = bench.listener.status("calibration")
    assert message.startswith("cam_back sees 0 of the 320 cells: it looks 90 degrees up, is its frame an optical frame")
    assert values["cam_back coverage"] == "sees no cell of the grid"


def test_the_crop_of_the_calibration_file_is_used(bench: Any, tmp_path: Path) -> None:
    from ros_bench import RIG

    square = [replace(c, height=160, crop_bottom=90) for c in RIG.cameras]
    Rig(tuple(square)).save(tmp_path / "rig.yaml")
    node = bench.start(calibration_file=str(tmp_path / "rig.yaml"))
    vehicle = bench.vehicle(Rig(tuple(square)), calibrated=False)
    bench.drive(vehicle, lambda: bench.listener.stamps())
    assert {c.crop_bottom for c in node._calibration.rig.cameras} == {90}
