"""ROS messages from arrays and results, for whichever library makes the message objects.

The builders take a `MessageFactory`, so that the same code fills the classes of a ROS installation and those of
the `rosbags` library. Field names are ROS 2's. Stamps are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.rig import EQUIDISTANT, Camera
from bridgeta_core.geometry.transforms import Matrix, quaternion
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view.bev import colour_cells
from bridgeta_ros.pipeline.status import Status
from bridgeta_ros.pipeline.topics import (
    BEV,
    BEV_IMAGE,
    CAMERA_INFO,
    COMPRESSED,
    FLOAT64,
    NAVIGATION,
    OCCUPANCY_GRID,
    POINT_CLOUD,
    RAW,
    TF_MESSAGE,
)

UNKNOWN = -1
_LATEST = 2**31 * 1_000_000_000 - 1  # ns; the seconds of a Time are an int32

_FLOAT32, _UINT16 = 7, 4  # sensor_msgs/PointField's constants
_OFFSETS = {"x": 0, "y": 4, "z": 8, "intensity": 12, "ring": 16}
_POINT = np.dtype(
    # The padding aligns the points to four bytes, so that readers may view the floats in place.
    {
        "names": list(_OFFSETS),
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2"],
        "offsets": list(_OFFSETS.values()),
        "itemsize": 20,
    }
)


class MessageFactory(Protocol):
    """Makes message objects. Arrays arrive as ndarrays of the field's exact type; a factory converts if it must."""

    def make(self, msgtype: str, **fields: Any) -> Any:
        """Make an object of `msgtype` (`nav_msgs/msg/OccupancyGrid`) with all its fields given."""
        ...


class RosbagsFactory:
    """Messages of a `rosbags` type store."""

    def __init__(self, typestore: Typestore) -> None:
        self._types = typestore.types

    def make(self, msgtype: str, **fields: Any) -> Any:
        """See `MessageFactory`."""
        return self._types[msgtype](**fields)


def stamp_to_ns(header: Any) -> int:
    """Return the stamp of a header in nanoseconds. Raises BridgeTAError as `check_time` does."""
    return check_time(int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec))


def check_time(ns: int) -> int:
    """Return a time in nanoseconds. Raises BridgeTAError for one that no builtin_interfaces/Time since 1970 holds.

    The greatest of both fields of a Time add up to four seconds more.
    """
    if not 0 <= ns <= _LATEST:
        raise BridgeTAError(f"a stamp of {ns / 1e9:.0f} s is no time", fix="Set the clock of what sent it")
    return ns


def make_time(factory: MessageFactory, ns: int) -> Any:
    """Make a builtin_interfaces/Time. Raises BridgeTAError as `check_time` does."""
    sec, nanosec = divmod(check_time(int(ns)), 1_000_000_000)
    return factory.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def make_header(factory: MessageFactory, ns: int, frame: str) -> Any:
    """Make a std_msgs/Header."""
    return factory.make("std_msgs/msg/Header", stamp=make_time(factory, ns), frame_id=frame)


def to_percent(probabilities: NDArray[np.floating], seen: NDArray[np.bool_] | None = None) -> NDArray[np.int8]:
    """Turn probabilities `[..., Y, X]` into occupancy values 0 to 100; -1 where they are NaN or not `seen`."""
    with np.errstate(invalid="ignore"):
        values = np.clip(probabilities, 0.0, 1.0) * 100.0
        percent: NDArray[np.int8] = np.rint(values, out=values).astype(np.int8)
    # All bits set are -1. A masked assignment, which branches at every cell, takes ten times as long as all the rest.
    percent |= -np.isnan(values).view(np.int8)
    if seen is not None:
        percent |= -(~seen).view(np.int8)
    return percent


def to_navigation(
    probabilities: NDArray[np.floating], seen: NDArray[np.bool_], threshold: float = 0.5
) -> NDArray[np.int8]:
    """Combine class probabilities `[6, Y, X]` to one grid `[Y, X]`: 0 drivable, 100 not drivable, -1 unknown.

    Unknown is what is not `seen`, and NaN.
    """
    drivable = probabilities[[c.name for c in CLASSES].index("drivable_area")]
    with np.errstate(invalid="ignore"):
        values: NDArray[np.int8] = np.int8(100) * (~(drivable >= threshold)).view(np.int8)
    return values | -(~seen | np.isnan(drivable)).view(np.int8)


def make_occupancy_grid(factory: MessageFactory, values: NDArray[np.int8], grid: BevGrid, ns: int, frame: str) -> Any:
    """Make a nav_msgs/OccupancyGrid of values `[Y, X]`, whose memory order is already that of the message."""
    rows, columns = values.shape
    origin = factory.make(
        "geometry_msgs/msg/Pose",
        position=factory.make("geometry_msgs/msg/Point", x=float(grid.x_min), y=float(grid.y_min), z=0.0),
        orientation=factory.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    info = factory.make(
        "nav_msgs/msg/MapMetaData",
        map_load_time=make_time(factory, ns),
        resolution=float(grid.resolution),
        width=columns,
        height=rows,
        origin=origin,
    )
    data = np.ascontiguousarray(values, dtype=np.int8).ravel()
    return factory.make(OCCUPANCY_GRID, header=make_header(factory, ns, frame), info=info, data=data)


def make_rgb_image(factory: MessageFactory, picture: NDArray[np.uint8], ns: int, frame: str) -> Any:
    """Make a sensor_msgs/Image (rgb8) of a picture `[H, W, 3]`."""
    return factory.make(
        RAW,
        header=make_header(factory, ns, frame),
        height=picture.shape[0],
        width=picture.shape[1],
        encoding="rgb8",
        is_bigendian=0,
        step=3 * picture.shape[1],
        data=np.ascontiguousarray(picture).ravel(),
    )


def make_compressed_image(factory: MessageFactory, content: bytes, ns: int, frame: str, kind: str = "jpeg") -> Any:
    """Make a sensor_msgs/CompressedImage of an image file's bytes, unchanged; `kind` is its format."""
    data = np.frombuffer(content, dtype=np.uint8)
    return factory.make(COMPRESSED, header=make_header(factory, ns, frame), format=kind, data=data)


def make_camera_info(factory: MessageFactory, camera: Camera, ns: int, frame: str) -> Any:
    """Make a sensor_msgs/CameraInfo of a monocular camera: R is the identity and P is [K | 0]."""
    polynomial = "plumb_bob" if len(camera.distortion) <= 5 else "rational_polynomial"
    return factory.make(
        CAMERA_INFO,
        header=make_header(factory, ns, frame),
        height=camera.height,
        width=camera.width,
        distortion_model=EQUIDISTANT if camera.distortion_model == EQUIDISTANT else polynomial,
        d=np.array(camera.distortion or (0.0,) * 5, dtype=np.float64),
        k=camera.intrinsics.ravel().copy(),
        r=np.eye(3).ravel(),
        p=np.hstack((camera.intrinsics, np.zeros((3, 1)))).ravel(),
        binning_x=0,
        binning_y=0,
        roi=factory.make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def make_tf_message(factory: MessageFactory, transforms: Iterable[tuple[int, str, str, Matrix]]) -> Any:
    """Make a tf2_msgs/TFMessage of (stamp, parent frame, child frame, parent_T_child)."""
    entries = []
    for ns, parent, child, parent_T_child in transforms:
        w, x, y, z = (float(v) for v in quaternion(parent_T_child))
        tx, ty, tz = (float(v) for v in parent_T_child[:3, 3])
        entry = factory.make(
            "geometry_msgs/msg/TransformStamped",
            header=make_header(factory, ns, parent),
            child_frame_id=child,
            transform=factory.make(
                "geometry_msgs/msg/Transform",
                translation=factory.make("geometry_msgs/msg/Vector3", x=tx, y=ty, z=tz),
                rotation=factory.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
            ),
        )
        entries.append(entry)
    return factory.make(TF_MESSAGE, transforms=entries)


def make_point_cloud(factory: MessageFactory, points: NDArray[np.float32], ns: int, frame: str) -> Any:
    """Make a sensor_msgs/PointCloud2 of nuScenes points `[n, 5]`: x, y, z in metres, intensity, ring."""
    packed = np.zeros(len(points), dtype=_POINT)
    for column, name in enumerate(_OFFSETS):
        packed[name] = points[:, column]
    fields = [
        factory.make(
            "sensor_msgs/msg/PointField",
            name=name,
            offset=offset,
            datatype=_UINT16 if name == "ring" else _FLOAT32,
            count=1,
        )
        for name, offset in _OFFSETS.items()
    ]
    return factory.make(
        POINT_CLOUD,
        header=make_header(factory, ns, frame),
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=_POINT.itemsize * len(points),
        data=packed.view(np.uint8).ravel(),
        is_dense=bool(np.isfinite(points[:, :3]).all()),
    )


def make_float64(factory: MessageFactory, value: float) -> Any:
    """Make a std_msgs/Float64."""
    return factory.make(FLOAT64, data=float(value))


def make_diagnostics(factory: MessageFactory, statuses: Iterable[Status], ns: int, owner: str) -> Any:
    """Make a diagnostic_msgs/DiagnosticArray; the names of the statuses begin with their owner's."""
    return factory.make(
        "diagnostic_msgs/msg/DiagnosticArray",
        header=make_header(factory, ns, ""),
        status=[
            factory.make(
                "diagnostic_msgs/msg/DiagnosticStatus",
                level=bytes([status.level]),
                name=f"{owner}: {status.name}",
                message=status.message,
                hardware_id=owner,
                values=[
                    factory.make("diagnostic_msgs/msg/KeyValue", key=key, value=value)
                    for key, value in status.values.items()
                ],
            )
            for status in statuses
        ],
    )


def list_output_topics() -> dict[str, str]:
    """List the topics that results are published on, with their message types."""
    grids = [f"{BEV}/{cls.name}" for cls in CLASSES]
    return {**dict.fromkeys([*grids, NAVIGATION], OCCUPANCY_GRID), BEV_IMAGE: RAW}


def make_result_messages(
    factory: MessageFactory,
    probabilities: NDArray[np.floating],
    seen: NDArray[np.bool_],
    grid: BevGrid,
    ns: int,
    frame: str,
    threshold: float = 0.5,
    wanted: Container[str] | None = None,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Make the messages of one result by topic: a grid per class, the navigation grid and the coloured picture.

    `threshold` is that of the navigation grid, `thresholds` are the picture's (see `colour_cells`, which draws it).
    Only messages for `wanted` topics are made; None wants all.
    """

    def is_wanted(topic: str) -> bool:
        return wanted is None or topic in wanted

    made: dict[str, Any] = {}
    for cls, layer in zip(CLASSES, probabilities, strict=True):
        topic = f"{BEV}/{cls.name}"
        if is_wanted(topic):
            made[topic] = make_occupancy_grid(factory, to_percent(layer, seen), grid, ns, frame)
    if is_wanted(NAVIGATION):
        values = to_navigation(probabilities, seen, threshold)
        made[NAVIGATION] = make_occupancy_grid(factory, values, grid, ns, frame)
    if is_wanted(BEV_IMAGE):
        made[BEV_IMAGE] = make_rgb_image(factory, colour_cells(probabilities, thresholds, seen), ns, frame)
    return made
