"""A drive in Foxglove's protobuf messages, as nuscenes2mcap writes it, replays like the same one in those of ROS 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_fakes import FakeRuntime, jpeg, write_bag
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP
from mcap.reader import make_reader
from mcap.writer import Writer

from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.bags.replay import replay
from bridgeta_ros.bags.report import write_report
from bridgeta_ros.bags.summary import ReplaySummary

Kind = FieldDescriptorProto
MESSAGES = {  # the fields that https://docs.foxglove.dev/docs/sdk/schemas lists
    "Vector3": dict.fromkeys("xyz", Kind.TYPE_DOUBLE),
    "Quaternion": dict.fromkeys("xyzw", Kind.TYPE_DOUBLE),
    "CompressedImage": {"frame_id": Kind.TYPE_STRING, "data": Kind.TYPE_BYTES, "format": Kind.TYPE_STRING},
    "RawImage": {
        "frame_id": Kind.TYPE_STRING,
        "width": Kind.TYPE_FIXED32,
        "height": Kind.TYPE_FIXED32,
        "encoding": Kind.TYPE_STRING,
        "step": Kind.TYPE_FIXED32,
        "data": Kind.TYPE_BYTES,
    },
    "CameraCalibration": {
        "frame_id": Kind.TYPE_STRING,
        "width": Kind.TYPE_FIXED32,
        "height": Kind.TYPE_FIXED32,
        "distortion_model": Kind.TYPE_STRING,
        **{name: [Kind.TYPE_DOUBLE] for name in "DKRP"},
    },
    "FrameTransform": {
        "parent_frame_id": Kind.TYPE_STRING,
        "child_frame_id": Kind.TYPE_STRING,
        "translation": ".foxglove.Vector3",
        "rotation": ".foxglove.Quaternion",
    },
    "FrameTransforms": {"transforms": [".foxglove.FrameTransform"]},
}


def define() -> FileDescriptorSet:
    file = FileDescriptorProto(name="all.proto", package="foxglove", syntax="proto3", dependency=[TIMESTAMP.name])
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate({"timestamp": ".google.protobuf.Timestamp", **fields}.items(), 1):
            label = Kind.LABEL_REPEATED if isinstance(kind, list) else Kind.LABEL_OPTIONAL
            kind = kind[0] if isinstance(kind, list) else kind
            named = {"type": Kind.TYPE_MESSAGE, "type_name": kind} if isinstance(kind, str) else {"type": kind}
            message.field.add(name=field, number=number, label=label, **named)
    timestamp = FileDescriptorProto()
    TIMESTAMP.CopyToProto(timestamp)
    return FileDescriptorSet(file=[file, timestamp])  # a dependency may come after the file that needs it


DEFINITION = define()
POOL = DescriptorPool()
for part in reversed(DEFINITION.file):
    POOL.Add(part)


def make(kind: str, stamp: Any, **fields: Any) -> Any:
    message = GetMessageClass(POOL.FindMessageTypeByName(f"foxglove.{kind}"))(**fields)
    message.timestamp.seconds, message.timestamp.nanos = stamp.sec, stamp.nanosec
    return message


def translate(message: Any, raw: bool, several: bool) -> list[Any]:
    """Return Foxglove's messages for one of ROS 2."""
    if hasattr(message, "transforms"):
        found = []
        for entry in message.transforms:
            t, q = entry.transform.translation, entry.transform.rotation
            frames = {"parent_frame_id": entry.header.frame_id, "child_frame_id": entry.child_frame_id}
            pose = {"translation": {"x": t.x, "y": t.y, "z": t.z}, "rotation": {"x": q.x, "y": q.y, "z": q.z, "w": q.w}}
            found.append(make("FrameTransform", entry.header.stamp, **frames, **pose))
        return [make("FrameTransforms", message.transforms[0].header.stamp, transforms=found)] if several else found
    stamp, frame = message.header.stamp, message.header.frame_id
    if hasattr(message, "k"):
        size = {"width": message.width, "height": message.height}
        return [make("CameraCalibration", stamp, frame_id=frame, K=message.k, R=message.r, P=message.p, **size)]
    if raw:
        pixels = np.full((90, 160, 3), 100, np.uint8)
        size = {"width": 160, "height": 90, "step": 480, "encoding": "rgb8"}
        return [make("RawImage", stamp, frame_id=frame, data=pixels.tobytes(), **size)]
    return [make("CompressedImage", stamp, frame_id=frame, data=message.data.tobytes(), format="jpeg")]


def to_foxglove(bag: Path, out: Path, raw: bool = False, several: bool = False) -> Path:
    """Write a bag as nuscenes2mcap would: its topics, all transforms on /tf."""
    channels: dict[str, int] = {}
    with open_bag(bag) as source, out.open("wb") as stream:
        writer = Writer(stream)
        writer.start("", "test")
        for recorded, time, data in source.raw(set(source.topics)):
            topic = recorded.topic.replace("/tf_static", "/tf").replace("/image/compressed", "/image_rect_compressed")
            for message in translate(source.decode(recorded, data), raw, several):
                if topic not in channels:
                    name = message.DESCRIPTOR.full_name
                    schema = writer.register_schema(name, "protobuf", DEFINITION.SerializeToString())
                    channels[topic] = writer.register_channel(topic, "protobuf", schema)
                writer.add_message(channels[topic], time, message.SerializeToString(), time)
        writer.finish()
    return out


def run(bag: Path, out: Path) -> tuple[ReplaySummary, FakeRuntime]:
    runtime = FakeRuntime()
    return replay(bag, out, runtime, progress=False), runtime


def read(path: Path, topic: str) -> list[tuple[int, Any]]:
    with open_bag(path) as bag:
        return [(time, bag.decode(recorded, data)) for recorded, time, data in bag.raw({topic})]


@pytest.mark.parametrize(("raw", "several"), [(False, False), (False, True), (True, False)])
def test_a_drive_in_foxgloves_messages_gives_the_grids_of_the_same_in_ros2s(tmp_path, raw, several):
    bag = write_bag(tmp_path / "in", image=lambda cycle, name: jpeg(100))
    expected, first = run(bag, tmp_path / "expected")
    summary, second = run(to_foxglove(bag, tmp_path / "nuscenes.mcap", raw, several), tmp_path / "out")
    assert (summary.used, summary.stamps, summary.remarks) == (6, expected.stamps, [])
    assert summary.cameras["cam_front"] == "/cam_front/image_rect_compressed"
    for camera, other in zip(first.rigs[0].cameras, second.rigs[0].cameras, strict=True):
        assert np.allclose(camera.intrinsics, other.intrinsics)
        assert np.allclose(camera.ego_T_cam, other.ego_T_cam)
    grids, others = (read(tmp_path / folder, "/bev/drivable_area") for folder in ("expected", "out"))
    assert all(np.array_equal(a.data, b.data) for (_, a), (_, b) in zip(grids, others, strict=True))


def test_their_transforms_are_copied_as_those_of_ros2(tmp_path):
    bag = write_bag(tmp_path / "in")
    run(to_foxglove(bag, tmp_path / "nuscenes.mcap"), tmp_path / "out")
    found = [message.transforms[0] for _, message in read(tmp_path / "out", "/tf")]
    assert {(t.header.frame_id, t.child_frame_id) for t in found} == {
        ("map", "base_link"),
        ("base_link", "cam_front"),
        ("base_link", "cam_back"),
    }
    assert [t.transform.translation.x for t in found if t.child_frame_id == "base_link"] == [0, 1, 2, 3, 4, 5]


def test_a_message_that_is_no_protobuf_costs_its_set_only(tmp_path):
    path = to_foxglove(write_bag(tmp_path / "in"), tmp_path / "nuscenes.mcap")
    with open_bag(path) as bag:
        recorded, _, data = next(iter(bag.raw({"/cam_back/image_rect_compressed"})))
    assert recorded.msgtype == "foxglove.CompressedImage"
    broken = tmp_path / "broken.mcap"
    with path.open("rb") as stream, broken.open("wb") as target:
        writer = Writer(target)
        writer.start("", "test")
        channels: dict[int, int] = {}
        for schema, channel, message in make_reader(stream).iter_messages():
            if channel.id not in channels:
                key = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, "protobuf", key)
            bad = message.data == data
            writer.add_message(channels[channel.id], message.log_time, b"\xff\xff" if bad else message.data, 0)
        writer.finish()
    summary, _ = run(broken, tmp_path / "out")
    assert summary.used == 5
    assert any("not a valid foxglove.CompressedImage" in reason for reason in summary.failures)


def test_the_report_shows_a_drive_in_foxgloves_messages(tmp_path):
    path = to_foxglove(write_bag(tmp_path / "in"), tmp_path / "nuscenes.mcap")
    run(path, tmp_path / "out")
    write_report(tmp_path / "out", path, tmp_path / "report.html", progress=False)
    assert (tmp_path / "report.html").exists()
