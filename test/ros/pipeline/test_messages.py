"""Messages are what ROS 2 readers expect, down to the types of their fields."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bag_fakes import AHEAD, GRID, K
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rosbags.typesys import Stores, get_typestore

from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.local_map import LocalMap
from bridgeta_core.geometry.rig import Camera
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view.bev import colour_cells
from bridgeta_ros.pipeline import messages
from bridgeta_ros.pipeline.status import ERROR, OK, WARN, Status
from bridgeta_ros.pipeline.topics import BEV, BEV_IMAGE, NAVIGATION

STORE = get_typestore(Stores.ROS2_JAZZY)
NS = 1_532_402_927_647_951_000
KINDS: dict[str, type] = {"bool": bool, "string": str, "float32": float, "float64": float, "byte": bytes}


class StrictFactory:
    """Makes messages as strictly as rclpy's classes: every field must be there, and of the exact Python type."""

    def make(self, msgtype: str, **fields: Any) -> Any:
        _, definitions = STORE.fielddefs[msgtype]
        assert sorted(fields) == sorted(name for name, _ in definitions)
        for name, (node, details) in definitions:
            self.check(f"{msgtype}.{name}", node.name, details, fields[name])
        return STORE.types[msgtype](**fields)

    def check(self, where: str, node: str, details: Any, value: Any) -> None:
        if node == "BASE":
            assert type(value) is KINDS.get(details[0], int), where
        elif node == "NAME":
            assert type(value) is STORE.types[details], where
        elif details[0][0].name == "BASE":
            assert isinstance(value, np.ndarray), where
            assert value.dtype == np.dtype(details[0][1][0]), where
            assert value.ndim == 1, where
            assert node == "SEQUENCE" or len(value) == details[1], where
        else:
            assert isinstance(value, list), where


MAKE = StrictFactory()


def test_an_occupancy_grid_keeps_memory_order_and_has_its_corner_as_origin():
    grid = BevGrid(-50, 50, -40, 40, 0.5)
    values = np.arange(160 * 200).reshape(160, 200) % 101
    message = messages.make_occupancy_grid(MAKE, values.astype(np.int8), grid, NS, "base_link")
    assert (message.info.width, message.info.height, message.info.resolution) == (200, 160, 0.5)
    position, turn = message.info.origin.position, message.info.origin.orientation
    assert (position.x, position.y, position.z) == (-50, -40, 0)
    assert (turn.x, turn.y, turn.z, turn.w) == (0, 0, 0, 1)
    # As nav_msgs says: cell (x, y) stands at y * width + x.
    assert message.data[3 * 200 + 7] == values[3, 7]
    assert messages.stamp_to_ns(message.header) == NS
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1532402927, 647951000)


@given(arrays(np.float32, (3, 4), elements=st.floats(-0.5, 1.5, width=32) | st.just(float("nan"))))
def test_percent_is_within_0_and_100_or_unknown(probabilities):
    values = messages.to_percent(probabilities)
    assert values.dtype == np.int8
    assert np.array_equal(values == -1, np.isnan(probabilities))
    inside = (probabilities >= 0) & (probabilities <= 1)
    assert np.abs(values[inside] - 100 * probabilities[inside]).max(initial=0) <= 0.5 + 1e-4
    assert ((values >= -1) & (values <= 100)).all()


def test_cells_that_no_camera_sees_are_unknown():
    seen = np.array([[True, False]])
    assert messages.to_percent(np.full((6, 1, 2), 0.7), seen).tolist() == [[[70, -1]]] * 6


def test_navigation_is_0_where_drivable_100_where_not_else_unknown():
    probabilities = np.zeros((6, 1, 4))
    probabilities[CLASS_NAMES.index("drivable_area"), 0] = (0.9, 0.5, 0.4, 0.9)
    probabilities[CLASS_NAMES.index("walkway")] = 1.0
    seen = np.array([[True, True, True, False]])
    assert messages.to_navigation(probabilities, seen).tolist() == [[0, 0, 100, -1]]
    assert messages.to_navigation(probabilities, seen, threshold=0.6).tolist() == [[0, 100, 100, -1]]


def test_where_the_drivable_area_is_unknown_navigation_is_too():
    probabilities = np.full((6, 1, 3), 0.9)
    probabilities[CLASS_NAMES.index("drivable_area"), 0] = (np.nan, 0.9, 0.1)
    assert messages.to_navigation(probabilities, np.ones((1, 3), bool)).tolist() == [[-1, 0, 100]]


def test_the_picture_shows_classes_from_their_thresholds_on_and_hatches_what_is_not_seen():
    probabilities, seen = np.full((6, *GRID.shape), 0.42), np.ones(GRID.shape, bool)
    seen[0] = False
    thresholds = (0.4, *(0.5,) * 5)
    message = messages.make_result_messages(
        MAKE, probabilities, seen, GRID, NS, "base_link", wanted={BEV_IMAGE}, thresholds=thresholds
    )[BEV_IMAGE]
    picture = message.data.reshape(message.height, message.width, 3)
    assert np.array_equal(picture, colour_cells(probabilities, thresholds, seen))
    assert len(np.unique(picture[:, :-1].reshape(-1, 3), axis=0)) == 1


def test_image_messages_keep_their_bytes():
    picture = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    message = messages.make_rgb_image(MAKE, picture, NS, "base_link")
    assert (message.height, message.width, message.step, message.encoding) == (4, 5, 15, "rgb8")
    assert message.data.tobytes() == picture.tobytes()
    compressed = messages.make_compressed_image(MAKE, b"\xff\xd8abc\xff\xd9", NS, "cam_front")
    assert (compressed.format, compressed.data.tobytes()) == ("jpeg", b"\xff\xd8abc\xff\xd9")


@pytest.mark.parametrize(
    ("distortion", "model", "d"),
    [((), "plumb_bob", [0] * 5), ((0.1, 0.2, 0, 0, 0.3), "plumb_bob", [0.1, 0.2, 0, 0, 0.3])],
)
def test_camera_info_of_a_monocular_camera(distortion, model, d):
    message = messages.make_camera_info(MAKE, Camera("front", 1600, 900, K, AHEAD, distortion), NS, "cam_front")
    assert (message.width, message.height, message.distortion_model) == (1600, 900, model)
    assert message.d.tolist() == d
    assert np.array_equal(message.k.reshape(3, 3), K)
    assert np.array_equal(message.r.reshape(3, 3), np.eye(3))
    assert np.array_equal(message.p.reshape(3, 4), np.column_stack((K, (0, 0, 0))))


def test_a_transform_goes_from_child_to_parent():
    pose = rigid((1, 2, 3), (0.5, 0.5, 0.5, 0.5))
    (entry,) = messages.make_tf_message(MAKE, [(NS, "base_link", "camera", pose)]).transforms
    assert (entry.header.frame_id, entry.child_frame_id) == ("base_link", "camera")
    t, q = entry.transform.translation, entry.transform.rotation
    assert np.allclose(rigid((t.x, t.y, t.z), (q.w, q.x, q.y, q.z)), pose)


def test_a_point_cloud_is_read_back_field_by_field():
    points = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    points[:, 4] = np.arange(7) * 4000
    message = messages.make_point_cloud(MAKE, points, NS, "lidar_top")
    assert [f.name for f in message.fields] == ["x", "y", "z", "intensity", "ring"]
    assert (message.width, message.height, message.row_step) == (7, 1, 7 * message.point_step)
    for column, field in enumerate(message.fields):
        kind = {7: "<f4", 4: "<u2"}[field.datatype]
        values = np.ndarray(7, kind, message.data.tobytes(), field.offset, (message.point_step,))
        assert np.array_equal(values, points[:, column])
    assert message.is_dense
    points[0, 0] = np.nan
    assert not messages.make_point_cloud(MAKE, points, NS, "lidar_top").is_dense


def test_a_result_is_published_on_exactly_the_declared_topics():
    seen = np.ones(GRID.shape, bool)
    result = messages.make_result_messages(MAKE, np.zeros((6, *GRID.shape)), seen, GRID, NS, "base_link")
    assert {topic: type(m) for topic, m in result.items()} == {
        topic: STORE.types[kind] for topic, kind in messages.list_output_topics().items()
    }
    assert {m.header.frame_id for m in result.values()} == {"base_link"}
    assert len(result) == 8


@given(st.data())
def test_only_wanted_messages_are_made_and_equal_those_of_all(data):
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    probabilities, seen = random.random((6, *GRID.shape)), random.random(GRID.shape) < 0.7
    wanted = data.draw(st.sets(st.sampled_from([*messages.list_output_topics(), "/elsewhere"])))
    everything = messages.make_result_messages(MAKE, probabilities, seen, GRID, NS, "base_link", 0.3)
    result = messages.make_result_messages(MAKE, probabilities, seen, GRID, NS, "base_link", 0.3, wanted)
    assert set(result) == wanted - {"/elsewhere"}
    for topic, message in result.items():
        assert np.array_equal(message.data, everything[topic].data)
        assert message.header == everything[topic].header


def test_each_output_has_its_own_topic():
    probabilities = np.zeros((6, *GRID.shape))
    probabilities += np.arange(1, 7)[:, None, None] / 10
    seen = np.ones(GRID.shape, bool)
    seen[0] = False
    result = messages.make_result_messages(MAKE, probabilities, seen, GRID, NS, "base_link", 0.05)
    for number, name in enumerate(CLASS_NAMES, 1):
        cells = result[f"{BEV}/{name}"].data.reshape(GRID.shape)
        assert set(cells[0]) == {-1}
        assert set(cells[1:].ravel()) == {10 * number}
    assert set(result[NAVIGATION].data.reshape(GRID.shape)[1:].ravel()) == {0}
    assert result[BEV_IMAGE].encoding == "rgb8"


@given(st.floats(allow_nan=False) | st.integers(-5, 5))
def test_a_number_is_a_message(value):
    assert messages.make_float64(MAKE, value).data == value


def test_diagnostics_have_byte_levels_and_text_values():
    statuses = [
        Status("cameras", WARN, "no image from left", {"left rate (Hz)": "0.0", "front rate (Hz)": "12.0"}),
        Status("sets", ERROR, "out of memory", {}),
        Status("latency", OK, "in time", {}),
    ]
    message = messages.make_diagnostics(MAKE, statuses, NS, "/car/bev_node")
    assert messages.stamp_to_ns(message.header) == NS
    assert [s.name for s in message.status] == [f"/car/bev_node: {name}" for name in ("cameras", "sets", "latency")]
    # diagnostic_msgs/DiagnosticStatus: OK 0, WARN 1, ERROR 2.
    assert [s.level for s in message.status] == [b"\x01", b"\x02", b"\x00"]
    assert [s.message for s in message.status] == ["no image from left", "out of memory", "in time"]
    assert {s.hardware_id for s in message.status} == {"/car/bev_node"}
    pairs = [(value.key, value.value) for value in message.status[0].values]
    assert pairs == [("left rate (Hz)", "0.0"), ("front rate (Hz)", "12.0")]


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
def test_every_stamp_is_a_time_that_messages_hold_or_refused(seconds, nanoseconds):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds))
    whole = seconds * 10**9 + nanoseconds
    if 0 <= whole < 2**31 * 10**9:
        assert messages.stamp_to_ns(header) == whole
        time = messages.make_time(StrictFactory(), whole)
        assert (time.sec, time.nanosec) == divmod(whole, 10**9)
        STORE.serialize_cdr(time, "builtin_interfaces/msg/Time")
        return
    with pytest.raises(BridgeTAError, match="is no time"):
        messages.stamp_to_ns(header)
    with pytest.raises(BridgeTAError, match="is no time"):
        messages.make_time(StrictFactory(), whole)


def test_an_occupancy_grid_of_the_map_has_its_cells_in_place():
    bev = BevGrid(-2, 2, -2, 2, 0.4)
    local = LocalMap(bev, 8.0)
    probabilities = np.full((6, 10, 10), 0.5)
    probabilities[1, 5, 9] = 0.99  # 1.8 m ahead, 0.2 m to the left
    local.update(probabilities, np.ones((10, 10), dtype=bool), rigid((2999.6, 1234.8, 0), (1, 0, 0, 0)))
    factory = messages.RosbagsFactory(STORE)
    message = messages.make_occupancy_grid(factory, messages.to_percent(local.probabilities()[1]), local.grid, 5, "map")
    info = message.info
    row, column = divmod(int(message.data.argmax()), info.width)
    resolution = float(np.float32(info.resolution))  # that field is a float32
    x = info.origin.position.x + (column + 0.5) * resolution
    y = info.origin.position.y + (row + 0.5) * resolution
    assert (x, y) == pytest.approx((2999.6 + 1.8, 1234.8 + 0.2), abs=1e-4)
    assert (info.width, info.height, message.header.frame_id) == (20, 20, "map")
