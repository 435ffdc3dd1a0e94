"""Images of any encoding become the same network inputs, and bad ones are named."""

from __future__ import annotations

import contextlib
import gc
import re
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from bag_fakes import AHEAD, GRID, RIG, SIZE, FakeRuntime, K, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.geometry.coverage import measure_coverage
from bridgeta_core.geometry.images import decode_and_fit
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.images import EncodedImage, RawImage
from bridgeta_ros.pipeline.pipeline import BevPipeline


def camera(name: str, degrees: float) -> Camera:
    half = np.deg2rad(degrees) / 2
    return Camera(name, *SIZE, K, rigid((0, 0, 0), (np.cos(half), 0, 0, np.sin(half))) @ AHEAD)


NAMES = ("front", "front_left", "back_left", "back", "back_right", "front_right")
RING = Rig(tuple(camera(name, 60.0 * i) for i, name in enumerate(NAMES)))
# Image i is of brightness 20 (i + 1), which shows what the network got.
PICTURES = {name: EncodedImage(jpeg(20 * (i + 1)), "jpeg") for i, name in enumerate(NAMES)}


def brightness(result) -> list[int]:
    """Return the brightness of each network input by FakeRuntime, rounded to the steps of PICTURES."""
    levels = result.probabilities[: len(result.cameras), 0, 0] * 255
    return [round(level / 20) * 20 for level in levels.tolist()]


def raw(pixels: np.ndarray) -> RawImage:
    return RawImage(*pixels.shape[:2], "rgb8", pixels[0].nbytes, pixels.tobytes())


def blank(encoding: str, step: int = 480) -> RawImage:
    """Make an image of the rig's size without pixels, for decoders that do not look at them."""
    return RawImage(SIZE[1], SIZE[0], encoding, step, b"")


@pytest.fixture(scope="module")
def tiny() -> Runtime:
    return Runtime("tiny", "cpu")


def test_a_set_goes_through_in_the_order_of_the_rig():
    with BevPipeline(FakeRuntime(), RIG) as pipeline:
        result = pipeline.run({"cam_back": EncodedImage(jpeg(200)), "cam_front": EncodedImage(jpeg(50))}, 123)
    assert result.stamp_ns == 123
    assert abs(result.probabilities[0].mean() * 255 - 50) < 2
    assert abs(result.probabilities[1].mean() * 255 - 200) < 2
    assert set(result.latencies) == {"decode", "preprocess", "network"}
    assert min(result.latencies.values()) >= 0


def test_the_network_input_of_a_jpeg_is_that_of_training():
    picture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (90, 160, 3), dtype=np.uint8), (9, 9), 0)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    runtime = FakeRuntime()
    with BevPipeline(runtime, RIG) as pipeline:
        prepared = pipeline.prepare({name: EncodedImage(data) for name in RIG.names}, 0)
    assert np.array_equal(prepared.inputs[0], decode_and_fit(data, runtime.fits(RIG)[0]))


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (EncodedImage(jpeg(50)[:200], "jpeg"), "truncated"),
        (EncodedImage(b"", "jpeg"), "holds no data"),
        (EncodedImage(b"\x00\x00\x00\x01abc", "h264"), "h264"),
        (EncodedImage(jpeg(50, (320, 180))), "calibration is for 160x90"),
        (RawImage(6, 8, "rgb8", 24, bytes(144)), "8x6 pixels"),
        (RawImage(90, 160, "32FC1", 640, bytes(57600)), "32FC1 is depth"),
    ],
)
def test_an_unusable_image_is_reported_with_its_camera(image, what):
    with (
        BevPipeline(FakeRuntime(), RIG) as pipeline,
        pytest.raises(BridgeTAError, match=f"camera cam_back: .*{what}"),
    ):
        pipeline.run({"cam_front": EncodedImage(jpeg(50)), "cam_back": image}, 0)


def test_a_set_without_one_of_the_cameras_is_refused():
    with BevPipeline(FakeRuntime(), RIG) as pipeline, pytest.raises(BridgeTAError, match="no image of cam_back"):
        pipeline.run({"cam_front": EncodedImage(jpeg(50))}, 0)


def test_odd_sizes_pass_in_either_encoding():
    size = (1281, 723)  # decoded at a quarter, JPEG rounds up and PNG down
    rig = Rig((Camera("only", *size, K, AHEAD),))
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    with BevPipeline(FakeRuntime(["only"]), rig) as pipeline:
        for kind in (".jpg", ".png"):
            data = cv2.imencode(kind, picture)[1].tobytes()
            assert abs(pipeline.run({"only": EncodedImage(data)}, 0).probabilities.mean() * 255 - 90) < 2


@pytest.mark.parametrize("distortion", [(-0.3, 0.1, 0.002, -0.001, 0.0), (0.4, 0.1, 0.0, 0.0, 0.05)])
def test_a_distorted_image_becomes_what_a_pinhole_camera_sees(distortion):
    # A smooth picture is defined on the rays; the distorted camera's image is drawn through OpenCV's model.
    k = np.array([[800.0, 0, 639.5], [0, 800.0, 359.5], [0, 0, 1]])
    camera = Camera("only", 1280, 720, k, AHEAD, distortion)

    def colour(x, y):
        waves = (np.sin(9 * x), np.sin(9 * y), np.sin(6 * (x + y)))
        return np.stack([127 + 100 * w for w in waves], -1).clip(0, 255)

    u, v = np.meshgrid(np.arange(1280.0), np.arange(720.0))
    points = np.stack((u, v), -1).reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
    rays = cv2.undistortPointsIter(points, k, np.array(distortion), None, None, criteria).reshape(720, 1280, 2)
    image = colour(rays[..., 0], rays[..., 1]).astype(np.uint8)
    runtime = FakeRuntime(["only"])
    rig = Rig((camera,))
    with BevPipeline(runtime, rig) as pipeline:
        inputs = pipeline.prepare({"only": raw(image)}, 0).inputs[0]
    u, v = np.meshgrid(np.arange(64.0), np.arange(32.0))
    x, y, _ = np.linalg.inv(runtime.fits(rig)[0].matrix @ k) @ np.stack((u.ravel(), v.ravel(), np.ones(64 * 32)))
    expected = colour(x, y).reshape(32, 64, 3)
    middle = (slice(6, -6), slice(6, -6))  # the border may lie outside the distorted image
    assert np.abs(inputs[middle] - expected[middle]).mean() < 3
    fitted = cv2.resize(image, runtime.fits(rig)[0].resized, interpolation=cv2.INTER_AREA)[-32:]
    assert np.abs(fitted[middle] - expected[middle]).mean() > 6  # so the test would notice a missing undistortion


@settings(max_examples=30)
@given(st.permutations(NAMES), st.integers(1, 6))
def test_a_partial_set_runs_on_the_rig_of_its_cameras(order, count):
    runtime, given_names = FakeRuntime(NAMES), order[:count]
    with BevPipeline(runtime, RING, minimum=1) as pipeline:
        result = pipeline.run({name: PICTURES[name] for name in given_names}, 7)
    used = tuple(name for name in NAMES if name in given_names)
    assert (result.cameras, result.faults, result.stamp_ns) == (used, {}, 7)
    assert runtime.rigs[-1].key() == RING.select(used).key()
    assert brightness(result) == [20 * (NAMES.index(name) + 1) for name in used]
    lift = runtime.info.model.lift
    coverage = measure_coverage(RING, runtime.fits(RING), GRID, lift.depth_min, lift.depth_max)
    seen = {view.camera.name: view.seen for view in coverage}
    assert np.array_equal(result.seen, np.any([seen[name] for name in used], axis=0))
    assert np.array_equal(pipeline.seen, np.any(list(seen.values()), axis=0))


def test_a_masked_camera_equals_a_vehicle_without_it(tiny):
    noise = np.random.default_rng(2)
    images = {name: noise.integers(0, 256, (90, 160, 3), dtype=np.uint8) for name in NAMES}
    pictures = {name: raw(image) for name, image in images.items()}
    without = {name: picture for name, picture in pictures.items() if name != "back_left"}
    five = Rig(tuple(camera(name, 60.0 * i) for i, name in enumerate(NAMES) if name != "back_left"))
    with BevPipeline(tiny, RING, minimum=5) as degraded, BevPipeline(tiny, five) as other:
        masked, never, whole = degraded.run(without, 0), other.run(without, 0), degraded.run(pictures, 0)
    assert np.array_equal(masked.probabilities, never.probabilities)
    assert np.array_equal(masked.seen, never.seen)
    assert np.abs(whole.probabilities - masked.probabilities).max() > 1e-3
    assert (whole.seen & ~masked.seen).any()


def test_a_dropout_that_comes_back_costs_no_new_mask():
    with BevPipeline(FakeRuntime(NAMES), RING, minimum=5) as pipeline:
        dropouts = [{name: PICTURES[name] for name in NAMES if name != lost} for lost in (*NAMES, None)]
        first = [pipeline.run(pictures, 0).seen for pictures in dropouts]
        again = [pipeline.run(pictures, 0).seen for pictures in dropouts]
    assert all(a is b for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (EncodedImage(jpeg(50)[:200], "jpeg"), r"JPEG is truncated .*\(jpeg\)"),
        (EncodedImage(b""), "holds no data"),
        (RawImage(90, 160, "", 0, b""), "encoding ''"),
        (RawImage(0, 0, "rgb8", 0, b""), "0x0 pixels"),
        (RawImage(90, 160, "rgb8", 480, b""), "raw image of 0 bytes"),
        (EncodedImage(b"abc", "h264"), "h264"),
        (EncodedImage(jpeg(50, (320, 180))), r"calibration is for 160x90\. Use the CameraInfo"),
        (RawImage(90, 160, "32FC1", 640, bytes(57600)), "32FC1 is depth"),
        (EncodedImage(None), "TypeError"),
        (None, "AttributeError"),
    ],
)
def test_an_unusable_image_costs_only_its_camera(image, what):
    with BevPipeline(FakeRuntime(NAMES), RING, minimum=5) as pipeline:
        result = pipeline.run({**PICTURES, "back": image}, 0)
    assert result.cameras == ("front", "front_left", "back_left", "back_right", "front_right")
    assert brightness(result) == [20, 40, 60, 100, 120]
    assert list(result.faults) == ["back"]
    assert re.search(what, result.faults["back"])


def test_missing_and_broken_images_are_named_when_too_few_are_left():
    pictures = {**PICTURES, "back": EncodedImage(b"", "jpeg")}
    del pictures["front"]
    message = (
        r"4 of 6 cameras are usable, 5 are needed: the set has no image of front; camera back: holds no data \(jpeg\)"
    )
    with BevPipeline(FakeRuntime(NAMES), RING, minimum=5) as pipeline, pytest.raises(BridgeTAError, match=message):
        pipeline.prepare(pictures, 0)


def test_missing_cameras_are_named_before_anything_is_decoded():
    decoded = []
    with BevPipeline(FakeRuntime(NAMES), RING, minimum=2, to_rgb=decoded.append) as pipeline:
        message = "1 of 6 cameras are usable, 2 are needed: the set has no image of front_left, back_left, back, "
        with pytest.raises(BridgeTAError, match=message):
            pipeline.prepare({"front": blank("rgb8")}, 0)
    assert not decoded


def test_a_set_without_any_image_is_refused():
    with BevPipeline(FakeRuntime(NAMES), RING, minimum=1) as pipeline, pytest.raises(BridgeTAError, match="0 of 6"):
        pipeline.prepare({}, 0)


@pytest.mark.parametrize("minimum", [None, 1])
def test_a_camera_that_the_rig_lacks_is_ignored(minimum):
    with BevPipeline(FakeRuntime(NAMES), RING, minimum=minimum) as pipeline:
        result = pipeline.run({"roof": EncodedImage(b""), **PICTURES}, 0)
    assert (result.cameras, result.faults) == (NAMES, {})


@pytest.mark.parametrize("minimum", [-1, 0, 7])
def test_a_minimum_that_the_rig_cannot_meet_is_refused(minimum):
    with pytest.raises(BridgeTAError, match=f"{minimum} cameras .* rig of 6"):
        BevPipeline(FakeRuntime(NAMES), RING, minimum=minimum)


def test_raw_images_are_decoded_by_the_given_function():
    with BevPipeline(FakeRuntime(), RIG, to_rgb=lambda given: np.full((90, 160, 3), given.step, np.uint8)) as p:
        prepared = p.prepare({"cam_front": blank("rgb8", step=77), "cam_back": EncodedImage(jpeg(50))}, 0)
    assert (prepared.inputs[0] == 77).all()


class BridgeFailure(TypeError):
    """What cv_bridge raises derives from TypeError."""


def fails(error: Exception):
    def to_rgb(image: RawImage):
        raise error

    return to_rgb


@pytest.mark.parametrize(
    ("to_rgb", "what"),
    [
        (fails(ValueError("no such rows")), r"ValueError: no such rows"),
        (fails(BridgeFailure("odd")), "BridgeFailure: odd"),
        (fails(KeyError(16)), "KeyError: 16"),
        (fails(MemoryError()), "MemoryError"),
        (fails(BridgeTAError("of no use", where="elsewhere", fix="Try jpeg")), r"of no use\. Try jpeg"),
        (lambda image: None, "AttributeError"),
        (lambda image: np.zeros((90, 160), np.uint8), r"uint8 \[90, 160\]"),
        (lambda image: np.zeros((90, 160, 4), np.uint8), r"uint8 \[90, 160, 4\]"),
        (lambda image: np.zeros((90, 160, 3), np.float32), r"float32 \[90, 160, 3\]"),
        (lambda image: np.zeros((0, 0, 3), np.uint8), r"uint8 \[0, 0, 3\]"),
    ],
)
def test_any_failure_in_decoding_a_raw_image_names_its_camera(to_rgb, what):
    pictures = {"cam_front": EncodedImage(jpeg(50)), "cam_back": blank("rgb8")}
    with (
        BevPipeline(FakeRuntime(), RIG, to_rgb=to_rgb) as pipeline,
        pytest.raises(BridgeTAError, match=f"camera cam_back: .*{what}"),
    ):
        pipeline.prepare(pictures, 0)


def test_the_next_set_passes_after_one_failed_in_every_camera():
    failing = True

    def to_rgb(image: RawImage):
        if failing:
            raise ValueError("not yet")
        return np.full((90, 160, 3), 80, np.uint8)

    with BevPipeline(FakeRuntime(), RIG, to_rgb=to_rgb) as pipeline:
        for _ in range(5):
            with pytest.raises(BridgeTAError, match=r"camera cam_front: .*not yet"):
                pipeline.prepare({name: blank("rgb8") for name in RIG.names}, 0)
        failing = False
        assert pipeline.prepare({name: blank("rgb8") for name in RIG.names}, 0).faults == {}


@pytest.mark.parametrize("minimum", [None, 1])
def test_a_failed_image_leaves_no_pictures_in_memory(minimum):
    alive = []

    def to_rgb(image: RawImage):
        picture = np.zeros((90, 160, 3), np.uint8)
        alive.append(weakref.ref(picture))
        if image.encoding == "bad":
            raise ValueError("bad")
        return picture

    gc.disable()
    try:
        with contextlib.suppress(BridgeTAError), BevPipeline(FakeRuntime(), RIG, minimum=minimum, to_rgb=to_rgb) as it:
            it.prepare({"cam_front": blank("rgb8"), "cam_back": blank("bad")}, 0)
        assert [ref() is None for ref in alive] == [True, True]
    finally:
        gc.enable()


def test_a_closed_pipeline_says_so():
    pipeline = BevPipeline(FakeRuntime(), RIG)
    pipeline.close()
    with pytest.raises(BridgeTAError, match="closed"):
        pipeline.prepare({name: EncodedImage(jpeg(50)) for name in RIG.names}, 0)


def test_closing_ends_a_set_that_is_being_decoded():
    begun, go_on = threading.Event(), threading.Event()

    def to_rgb(image: RawImage):
        begun.set()
        go_on.wait(30)
        return np.zeros((90, 160, 3), np.uint8)

    pictures = {name: blank("rgb8") for name in NAMES}
    pipeline = BevPipeline(FakeRuntime(NAMES), RING, workers=1, to_rgb=to_rgb)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(pipeline.prepare, pictures, 0)
        assert begun.wait(30)
        second, closing = threads.submit(pipeline.prepare, pictures, 1), threads.submit(pipeline.close)
        with pytest.raises(BridgeTAError, match="closed"):
            second.result(30)
        go_on.set()  # the only thread ends the image that it is at, and takes no other
        with pytest.raises(BridgeTAError, match="closed"):
            first.result(30)
        closing.result(30)
