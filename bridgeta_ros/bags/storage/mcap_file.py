"""MCAP files, read by the `mcap` library."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.summary import Summary

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.storage.topic import RecordedTopic, complete_type

LARGEST_CHUNK = 2**30  # bytes, unpacked; writers cut their chunks at some megabytes
_RECOVER = "If it is damaged, `mcap recover` may save the rest"
_CHUNK_SIZE = 9 + 16  # bytes of a chunk record before its unpacked size
_HEAD, _PIECE = 64, 2**24  # bytes
_LZ4, _LZ4_RATIO = "lz4", 255  # at its best
_MAGIC = b"\x89MCAP0\r\n"  # the first and the last bytes


class McapFile:
    """An MCAP file, with or without summary, chunks and indexes. Checksums are checked where there are some.

    Raises BridgeTAError for a file that was cut off.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._require_end(path)
        self._size = path.stat().st_size  # no record is larger, whatever it says
        self._reader = SeekingReader(self._stream, validate_crcs=True, record_size_limit=self._size)
        self.counts: Counter[str] | None
        self.start_ns: int
        summary = self._reader.get_summary()
        self._indexed = summary is not None and _has_indexes(summary)
        if summary is None or not _has_channels(summary):
            summary, self.counts, self.start_ns = self._scan()
            self._indexed = False
        else:
            self.counts, self.start_ns = _read_counts(summary)
            self._check_chunks(summary)
        self._channels = {c.id: _describe_channel(c, summary.schemas) for c in summary.channels.values()}
        self.topics = list(self._channels.values())

    def _require_end(self, path: Path) -> None:
        start = self._stream.read(len(_MAGIC))
        self._stream.seek(-min(len(_MAGIC), path.stat().st_size), io.SEEK_END)
        if self._stream.read() == start == _MAGIC:
            self._stream.seek(0)
            return
        self._stream.close()
        raise BridgeTAError(
            "has no end: its recording or its copy was cut off",
            fix=f"Copy it again, or save what is there: `mcap recover {path.name} -o recovered.mcap`",
        )

    def _scan(self) -> tuple[Summary, Counter[str], int]:
        """Read the whole file for its channels, the messages of each, and the first recording time."""
        summary, counts, start = Summary(), Counter[int](), 0
        for record in self._read_records():
            if isinstance(record, Schema):
                summary.schemas[record.id] = record
            elif isinstance(record, Channel):
                summary.channels[record.id] = record
            elif isinstance(record, Message):
                start = min(start, record.log_time) if counts else record.log_time
                counts[record.channel_id] += 1
        by_topic = Counter[str]()
        for channel in summary.channels.values():
            by_topic[channel.topic] += counts[channel.id]
        return summary, by_topic, start

    def _read_records(self) -> Iterator[McapRecord]:
        """Yield the records as they lie in the file, those inside of chunks too."""
        self._stream.seek(0)
        reader = StreamReader(self._stream, emit_chunks=True, validate_crcs=True, record_size_limit=self._size)
        for record in reader.records:
            if isinstance(record, Chunk):
                _require_size(record.compression, record.uncompressed_size, record.data)
                yield from breakup_chunk(record, validate_crc=True)
            else:
                yield record

    def _check_chunks(self, summary: Summary) -> None:
        """Look at the head of each chunk of a summary: its reader asks for as much memory as it finds there."""
        for index in summary.chunk_indexes:
            self._stream.seek(index.chunk_start_offset + _CHUNK_SIZE)
            size, name_length = struct.unpack("<Q4xI", self._stream.read(16))
            name = self._stream.read(min(name_length, _HEAD)).decode(errors="replace")
            (length,) = struct.unpack("<Q", self._stream.read(8))
            whole = name == _LZ4 and length * _LZ4_RATIO > LARGEST_CHUNK
            _require_size(name, size, self._stream.read(min(length, self._size if whole else _HEAD)))

    def messages(self, names: Collection[str]) -> Iterator[tuple[RecordedTopic, int, bytes]]:
        """See `DataFile`. They come in the order of their times if the file has an index, else as they lie there."""
        wanted = {key: topic for key, topic in self._channels.items() if topic.topic in names}
        if self._indexed:
            for _, channel, message in self._reader.iter_messages(set(names)):
                yield wanted[channel.id], message.log_time, message.data
            return
        for record in self._read_records():
            if isinstance(record, Message) and record.channel_id in wanted:
                yield wanted[record.channel_id], record.log_time, record.data

    def close(self) -> None:
        self._stream.close()


def _require_size(compression: str, size: int, data: bytes) -> None:
    """Raise BridgeTAError for a chunk that unpacks to more than any has, as it and its data, or their head, say."""
    if compression == "zstd":
        size = max(size, zstandard.frame_content_size(data))
    elif compression == _LZ4 and len(data) * _LZ4_RATIO > LARGEST_CHUNK:
        unpacker = lz4.frame.LZ4FrameDecompressor()
        unpacked = len(unpacker.decompress(data, max_length=_PIECE))
        while unpacked <= LARGEST_CHUNK and not unpacker.eof and not unpacker.needs_input:
            unpacked += len(unpacker.decompress(b"", max_length=_PIECE))
        size = max(size, unpacked)
    if size > LARGEST_CHUNK:
        raise BridgeTAError(f"has a chunk that unpacks to more than {LARGEST_CHUNK:,} bytes", fix=_RECOVER)


def _has_indexes(summary: Summary) -> bool:
    """Return whether the summary lists every chunk of the file."""
    chunks = len(summary.chunk_indexes)
    return chunks > 0 and (summary.statistics is None or summary.statistics.chunk_count == chunks)


def _has_channels(summary: Summary) -> bool:
    """Return whether the summary repeats the channels and schemas; writers may leave that out."""
    channels = {key for index in summary.chunk_indexes for key in index.message_index_offsets}
    if summary.statistics is not None:
        channels |= summary.statistics.channel_message_counts.keys()
    schemas = {channel.schema_id for channel in summary.channels.values()} - {0}
    return bool(summary.channels) and channels <= summary.channels.keys() and schemas <= summary.schemas.keys()


def _read_counts(summary: Summary) -> tuple[Counter[str] | None, int]:
    """Read the messages by topic, None if the summary does not have them, and the first recording time."""
    statistics = summary.statistics
    if statistics is None or sum(statistics.channel_message_counts.values()) != statistics.message_count:
        return None, min((index.message_start_time for index in summary.chunk_indexes), default=0)
    counts = Counter[str]()
    for channel in summary.channels.values():
        counts[channel.topic] += statistics.channel_message_counts.get(channel.id, 0)
    return counts, statistics.message_start_time


def _describe_channel(channel: Channel, schemas: dict[int, Schema]) -> RecordedTopic:
    schema = schemas.get(channel.schema_id, Schema(0, b"", "", ""))
    type_hash = channel.metadata.get("topic_type_hash", "")
    msgtype = complete_type(schema.name)
    return RecordedTopic(channel.topic, msgtype, channel.message_encoding, schema.encoding, schema.data, type_hash)
