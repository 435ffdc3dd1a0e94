"""MCAP files as other writers make them: the topics that are asked for are read, whatever else the file holds."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard
from bag_fakes import FakeRuntime, rewrite, write_bag
from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, Header, Schema, Statistics
from mcap.writer import IndexType, Writer
from memory_limit import little_memory

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.bags.replay import ReplaySettings, replay
from bridgeta_ros.bags.summary import ReplaySummary

CYCLES = 6


def run(bag: Path) -> ReplaySummary:
    out = bag.parent / "out"
    return replay(bag, out, FakeRuntime(), ReplaySettings(overwrite=True), progress=False)


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / "in", CYCLES)


@pytest.mark.parametrize(
    "extra",
    [
        ("acme_msgs/srv/Add_Event", "ros2msg", b"int64 a\n---\nint64 sum\n", "cdr"),
        ("foxglove.Log", "protobuf", b"\n\0\xff\xfe", "protobuf"),
        ("acme/msg/Thing", "ros2idl", b"module {", "cdr"),
        ("acme/msg/Thing", "ros2msg", b"acme/Missing part\n", "cdr"),
        ("acme/msg/Thing", "", b"", "cdr"),
        ("log", "jsonschema", b"{}", "json"),
        ("sensor_msgs/Image", "ros1msg", b"Header header", "ros1"),
    ],
)
def test_a_topic_nobody_asked_for_may_be_anything(bag, tmp_path, extra):
    summary = run(rewrite(bag, tmp_path / "extra.mcap", extra=extra))
    assert (summary.used, summary.remarks) == (CYCLES, [])


@pytest.mark.parametrize(
    "options",
    [
        {"index_types": IndexType.CHUNK},
        {"index_types": IndexType.NONE},
        {"index_types": IndexType.MESSAGE},
        {"use_chunking": False},
        {"use_statistics": False},
        {"repeat_channels": False},
        {"repeat_schemas": False},
        {"use_summary_offsets": False},
        {
            "use_statistics": False,
            "repeat_channels": False,
            "index_types": IndexType.NONE,
            "use_summary_offsets": False,
        },
    ],
)
def test_indexes_and_summaries_may_be_missing(bag, tmp_path, options):
    summary = run(rewrite(bag, tmp_path / "bare.mcap", **options))
    assert (summary.used, summary.incomplete, summary.remarks) == (CYCLES, 0, [])


def test_an_empty_schema_of_a_standard_type_is_the_built_in_one(bag, tmp_path):
    summary = run(rewrite(bag, tmp_path / "bare.mcap", lambda name, *_: (name, "", b"")))
    assert (summary.used, summary.remarks) == (CYCLES, [])


def test_a_broken_schema_of_a_standard_type_is_replaced_and_said(bag, tmp_path):
    summary = run(rewrite(bag, tmp_path / "broken.mcap", lambda name, kind, _: (name, kind, b"no definition at all")))
    assert summary.used == CYCLES
    assert any("CameraInfo cannot be used" in remark for remark in summary.remarks)


def test_types_may_be_written_without_their_middle_part(bag, tmp_path):
    path = rewrite(bag, tmp_path / "short.mcap", lambda name, *rest: (name.replace("/msg/", "/"), *rest))
    assert run(path).used == CYCLES


def test_a_type_hash_that_differs_is_said(bag, tmp_path):
    summary = run(rewrite(bag, tmp_path / "hash.mcap", metadata={"topic_type_hash": "RIHS01_" + "0" * 64}))
    assert summary.used == CYCLES
    assert any("type hash" in remark and "CompressedImage" in remark for remark in summary.remarks)


@pytest.mark.parametrize(
    ("encoding", "advice"), [("ros1", "rosbags-convert"), ("protobuf", "Foxglove's"), ("json", "Record")]
)
def test_a_file_of_other_messages_than_those_of_ros2_gets_advice(tmp_path, encoding, advice):
    path = tmp_path / "other.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("", "test")
        schema = writer.register_schema("acme.CompressedImage", encoding, b"\n\xff")
        writer.add_message(writer.register_channel("/CAM_FRONT/image", encoding, schema), 1, b"1", 1)
        writer.finish()
    with pytest.raises(BridgeTAError, match=f"no ROS 2 messages, but {encoding}.*{advice}"), open_bag(path):
        pass


def test_messages_of_several_publishers_of_a_topic_are_all_read(tmp_path):
    path = tmp_path / "two.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2", "test")
        schema = writer.register_schema("std_msgs/msg/Float64", "ros2msg", b"float64 data")
        channels = [writer.register_channel("/value", "cdr", schema) for _ in range(2)]
        for i in range(4):
            writer.add_message(channels[i % 2], i, b"\0\1\0\0" + bytes(8), i)
        writer.finish()
    with open_bag(path) as bag:
        assert [time for _, time, _ in bag.raw({"/value"})] == [0, 1, 2, 3]
        assert bag.count({"/value"}) == 4


def write_chunk(path: Path, data: bytes, compression: str, size: int, indexed: bool) -> Path:
    """Write an MCAP file of one topic and one chunk, whose data and whose promise of their size are given."""
    times = {"message_start_time": 1, "message_end_time": 1}
    packed = {"compression": compression, "uncompressed_size": size, **times}
    counts = {"schema_count": 1, "channel_count": 1, "attachment_count": 0, "metadata_count": 0, "message_count": 1}
    statistics = Statistics(chunk_count=1, channel_message_counts={1: 1}, **counts, **times)
    with path.open("wb") as file:

        def write(record: Any) -> int:
            start, builder = file.tell(), RecordBuilder()
            record.write(builder)
            file.write(builder.end())
            return start

        file.write(b"\x89MCAP0\r\n")
        write(Header("ros2", "test"))
        start = write(Chunk(data=data, uncompressed_crc=0, **packed))
        length = file.tell() - start
        write(DataEnd(0))
        summary = file.tell()
        write(Schema(1, b"string data", "ros2msg", "std_msgs/msg/String"))
        write(Channel(1, "/a", "cdr", {}, 1))
        if indexed:
            place = {"chunk_start_offset": start, "chunk_length": length, "compressed_size": len(data)}
            write(ChunkIndex(message_index_offsets={1: 1}, message_index_length=0, **place, **packed))
        write(statistics)
        write(Footer(summary, 0, 0))
        file.write(b"\x89MCAP0\r\n")
    return path


ZEROS = 2**31


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("compression", ["zstd", "zstd promised", "lz4", ""])
def test_a_chunk_that_claims_gigabytes_gets_no_memory(tmp_path, indexed, compression):
    size = ZEROS
    if compression == "lz4":
        packer, size = lz4.frame.LZ4FrameCompressor(), 1000  # the chunk promises little, and holds much
        data = packer.begin() + b"".join(packer.compress(bytes(2**24)) for _ in range(ZEROS >> 24)) + packer.flush()
    elif compression == "zstd":
        data = zstandard.compress(bytes(1000))
    else:
        packed = BytesIO()
        with zstandard.ZstdCompressor().stream_writer(packed, size=ZEROS, closefd=False) as writer:
            for _ in range(ZEROS >> 24):
                writer.write(bytes(2**24))
        data, size = packed.getvalue(), ZEROS if compression == "" else 1000
    kind = compression.partition(" ")[0]
    path = write_chunk(tmp_path / "a.mcap", data, kind, size, indexed)
    with (
        little_memory(2**30 + 2**29),
        pytest.raises(BridgeTAError, match="has a chunk that unpacks to more than 1,073,741,824 bytes"),
        open_bag(path) as bag,
    ):
        list(bag.raw({"/a"}))


def test_a_record_longer_than_its_file_gets_no_memory(tmp_path):
    path = write_chunk(tmp_path / "a.mcap", b"", "", 0, indexed=False)
    content = bytearray(path.read_bytes())
    content[9:17] = (3 * 2**30).to_bytes(8, "little")  # the length of the header
    path.write_bytes(content)
    with (
        little_memory(2**29),
        pytest.raises(BridgeTAError, match="cannot be read as a ROS 2 bag"),
        open_bag(path) as bag,
    ):
        list(bag.raw({"/a"}))
