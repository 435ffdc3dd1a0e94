"""Foxglove's protobuf messages, which public nuScenes bags consist of, as the messages of ROS 2 that they stand for.

Their fields are those of https://docs.foxglove.dev/docs/sdk/schemas. The definitions lie in the bag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.messages import MessageFactory

PROTOBUF = "protobuf"  # the encoding of their messages and definitions


def load_message_class(name: str, definition: bytes) -> Callable[[], Any]:
    """Return the class of a protobuf message from the FileDescriptorSet that defines it."""
    pool, added = DescriptorPool(), set[str]()
    files = {file.name: file for file in FileDescriptorSet.FromString(definition).file}

    def add(file: FileDescriptorProto) -> None:
        if file.name not in added:
            added.add(file.name)
            for dependency in file.dependency:
                add(files[dependency])
            pool.Add(file)

    for file in files.values():
        add(file)
    return GetMessageClass(pool.FindMessageTypeByName(name))


def _make_header(make: MessageFactory, message: Any, frame: str) -> Any:
    return messages.make_header(make, message.timestamp.seconds * 1_000_000_000 + message.timestamp.nanos, frame)


def _make_compressed_image(make: MessageFactory, message: Any) -> Any:
    data = np.frombuffer(message.data, dtype=np.uint8)
    header = _make_header(make, message, message.frame_id)
    return make.make(topics.COMPRESSED, header=header, format=message.format, data=data)


def _make_image(make: MessageFactory, message: Any) -> Any:
    return make.make(
        topics.RAW,
        header=_make_header(make, message, message.frame_id),
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=0,
        step=message.step,
        data=np.frombuffer(message.data, dtype=np.uint8),
    )


def _make_camera_info(make: MessageFactory, message: Any) -> Any:
    def fill(values: Any, count: int) -> np.ndarray:
        return np.array(values if len(values) == count else [0.0] * count, dtype=np.float64)

    roi = make.make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return make.make(
        topics.CAMERA_INFO,
        header=_make_header(make, message, message.frame_id),
        height=message.height,
        width=message.width,
        distortion_model=message.distortion_model,
        d=np.array(message.D, dtype=np.float64),
        k=fill(message.K, 9),
        r=fill(message.R, 9),
        p=fill(message.P, 12),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def _make_transforms(make: MessageFactory, message: Any) -> Any:
    transforms = []
    for entry in getattr(message, "transforms", [message]):
        t, q = entry.translation, entry.rotation
        pose = make.make(
            "geometry_msgs/msg/Transform",
            translation=make.make("geometry_msgs/msg/Vector3", x=t.x, y=t.y, z=t.z),
            rotation=make.make("geometry_msgs/msg/Quaternion", x=q.x, y=q.y, z=q.z, w=q.w),
        )
        transforms.append(
            make.make(
                "geometry_msgs/msg/TransformStamped",
                header=_make_header(make, entry, entry.parent_frame_id),
                child_frame_id=entry.child_frame_id,
                transform=pose,
            )
        )
    return make.make(topics.TF_MESSAGE, transforms=transforms)


TRANSLATIONS: dict[str, tuple[str, Callable[[MessageFactory, Any], Any]]] = {
    "foxglove.CompressedImage": (topics.COMPRESSED, _make_compressed_image),
    "foxglove.RawImage": (topics.RAW, _make_image),
    "foxglove.CameraCalibration": (topics.CAMERA_INFO, _make_camera_info),
    "foxglove.FrameTransform": (topics.TF_MESSAGE, _make_transforms),
    "foxglove.FrameTransforms": (topics.TF_MESSAGE, _make_transforms),
}
"""By name of a protobuf message: the ROS type that it stands for, and what makes it."""
