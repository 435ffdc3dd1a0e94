"""The runtime: the student's own figures, a plan per calibration, and no training code on board."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import GRID, pictures, rig, trained_student

from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import WeightsInfo, save_weights
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.images import apply_fit
from bridgeta_core.geometry.lens import Undistortion
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError


@pytest.fixture(scope="module")
def student() -> Student:
    return trained_student()


@pytest.fixture
def runtime(student: Student) -> Runtime:
    info = WeightsInfo(student.config, GRID, CLASS_NAMES, ("a", "b"))
    return Runtime.from_student(student, info, "cpu")


@pytest.mark.parametrize("cameras", [1, 2, 3])
def test_it_computes_what_the_student_computes(runtime: Runtime, student: Student, cameras: int) -> None:
    images, vehicle = pictures(cameras), rig(cameras)
    fits = runtime.fits(vehicle)
    k = torch.tensor(np.stack([f.matrix @ c.intrinsics for f, c in zip(fits, vehicle.cameras, strict=True)]))[None]
    pose = torch.tensor(np.stack([c.ego_T_cam for c in vehicle.cameras]))[None]
    with torch.no_grad():
        z = student(torch.from_numpy(images).permute(0, 3, 1, 2)[None], student.plan(k, pose)).Z
    found = runtime.infer(images, vehicle)
    assert found.shape == (6, 24, 40)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, z[0].sigmoid().numpy(), atol=1e-5)
    assert found.std() > 1e-4


def test_a_class_that_the_training_data_did_not_know_is_nan(student: Student) -> None:
    origin = {"unknown_classes": ["walkway", "stop_line"]}
    info = WeightsInfo(student.config, GRID, CLASS_NAMES, ("a", "b"), origin)
    found = Runtime.from_student(student, info, "cpu").infer(pictures(2), rig(2))
    unknown = np.array([name in origin["unknown_classes"] for name in CLASS_NAMES])
    assert np.isnan(found[unknown]).all()
    assert np.isfinite(found[~unknown]).all()


def test_it_takes_images_as_the_cameras_give_them(runtime: Runtime) -> None:
    vehicle = rig(2)
    random = np.random.default_rng(0)
    whole = [random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in vehicle.cameras]
    fitted = np.stack([apply_fit(image, fit) for image, fit in zip(whole, runtime.fits(vehicle), strict=True)])
    expected = runtime.infer(fitted, vehicle)
    np.testing.assert_array_equal(runtime(whole, vehicle), expected)
    by_name = dict(reversed(list(zip(vehicle.names, whole, strict=True))))
    np.testing.assert_array_equal(runtime({**by_name, "unused": whole[0]}, vehicle), expected)


def test_it_undistorts_what_a_lens_has_bent(runtime: Runtime) -> None:
    straight = rig(2)
    bent = Rig(tuple(replace(c, distortion=(-0.2, 0.05, 0.0, 0.0)) for c in straight.cameras))
    random = np.random.default_rng(0)
    whole = [random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in bent.cameras]
    pairs = zip(bent.cameras, runtime.fits(bent), whole, strict=True)
    fitted = np.stack([Undistortion.build(camera, fit).apply(image) for camera, fit, image in pairs])
    np.testing.assert_array_equal(runtime(whole, bent), runtime.infer(fitted, bent))
    assert (runtime(whole, bent) != runtime(whole, straight)).any()


def test_an_image_that_does_not_fit_is_named_by_its_camera(runtime: Runtime) -> None:
    vehicle = rig(2)
    first, second = vehicle.cameras
    image = np.zeros((first.height, first.width, 3), np.uint8)
    with pytest.raises(BridgeTAError, match=f"no image of {second.name}"):
        runtime({first.name: image}, vehicle)
    with pytest.raises(BridgeTAError, match="1 images for 2 cameras"):
        runtime([image], vehicle)
    with pytest.raises(BridgeTAError, match=f"camera {second.name}: its image is float64"):
        runtime([image, image * 1.0], vehicle)
    with pytest.raises(BridgeTAError, match=rf"camera {first.name}: its image is uint8 \[4, 4, 3\]"):
        runtime([image[:4, :4], image], vehicle)


def test_loading_from_a_file_gives_the_same(student: Student, runtime: Runtime, tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", student, ("a", "b"), {"steps": 1})
    loaded = Runtime(tmp_path / "a.safetensors", "cpu")
    assert loaded.grid == GRID
    assert loaded.image == student.config.image
    assert loaded.info.cameras == ("a", "b")
    np.testing.assert_array_equal(loaded.infer(pictures(2), rig(2)), runtime.infer(pictures(2), rig(2)))


def test_a_plan_is_made_once_per_calibration(runtime: Runtime) -> None:
    runtime.warm_up(rig(2))
    plan = runtime.plan(rig(2))
    assert runtime.plan(rig(2)) is plan
    first = rig(2).cameras[0]
    moved = first.ego_T_cam.copy()
    moved[0, 3] += 0.5
    changed = Rig((replace(first, ego_T_cam=moved), rig(2).cameras[1]))
    assert runtime.plan(changed) is not plan
    assert runtime.plan(rig(2)) is plan
    before, after = runtime.infer(pictures(2), rig(2)), runtime.infer(pictures(2), changed)
    assert np.abs(before - after).max() > 1e-4


def test_focal_length_and_image_size_are_part_of_a_calibration(runtime: Runtime) -> None:
    first = rig(1).cameras[0]
    zoomed = replace(first, intrinsics=first.intrinsics * [[2, 1, 1], [1, 2, 1], [1, 1, 1]])
    larger = replace(first, width=1600, height=900)
    plans = [runtime.plan(Rig((c,))) for c in (first, zoomed, larger)]
    assert len({id(p) for p in plans}) == 3


def test_only_the_latest_plans_are_kept(runtime: Runtime) -> None:
    first = runtime.plan(rig(1))
    for i in range(10):
        runtime.plan(rig(1, height=1.6 + 0.1 * i))
    assert runtime.plan(rig(1)) is not first


def test_a_camera_that_drops_out_and_returns_costs_no_new_plan(runtime: Runtime) -> None:
    whole = rig(6)
    rigs = [whole, *(whole.select(tuple(n for n in whole.names if n != lost)) for lost in whole.names)]
    plans = [runtime.plan(part) for part in rigs]
    again = [runtime.plan(whole.select(part.names)) for part in rigs]
    assert all(a is b for a, b in zip(plans, again, strict=True))


def test_it_says_what_it_runs_on(student: Student, runtime: Runtime) -> None:
    assert (runtime.device, runtime.backend, runtime.precision) == (torch.device("cpu"), "torch", "float32")
    automatic = Runtime.from_student(student, runtime.info)
    assert automatic.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_images_are_fitted_at_the_bottom_with_the_margin(runtime: Runtime) -> None:
    assert runtime.fits(rig(2)) == (
        ImageFit.bottom((800, 450), (64, 32), 1.25),
        ImageFit.bottom((800, 500), (64, 32), 1.25),
    )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 32, 64), np.uint8),
        np.zeros((3, 32, 64, 3), np.uint8),
        np.zeros((2, 32, 64, 3), np.float32),
        np.zeros((2, 16, 64, 3), np.uint8),
    ],
)
def test_images_of_another_shape_or_type_are_refused(runtime: Runtime, images: NDArray) -> None:
    with pytest.raises(BridgeTAError, match=r"not uint8 \[2, 32, 64, 3\]"):
        runtime.infer(images, rig(2))


@pytest.mark.parametrize(("device", "precision"), [("toaster", "float32"), ("cpu", "float16"), ("cpu", "int3")])
def test_a_device_or_precision_that_is_not_there_is_named(student: Student, device: str, precision: str) -> None:
    info = WeightsInfo(student.config, GRID, CLASS_NAMES, ())
    with pytest.raises(BridgeTAError, match=r"toaster|float16|int3"):
        Runtime.from_student(student, info, device, precision)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-3), ("float16", 3e-2), ("bfloat16", 1e-1)])
def test_a_gpu_gives_what_the_cpu_gives(
    student: Student, runtime: Runtime, precision: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # which keeps 10 bits of what is called float32
    on_gpu = Runtime.from_student(student, runtime.info, "cuda", precision)
    # Other cameras and other images, then the first ones again: each set of cameras is recorded for itself.
    for cameras in (2, 1, 2):
        for images in (pictures(cameras), 255 - pictures(cameras)):
            expected = runtime.infer(images, rig(cameras))
            np.testing.assert_allclose(on_gpu.infer(images, rig(cameras)), expected, atol=tolerance)
