"""Reading and writing of ROS 2 bags, with this project's errors."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.outputs import check_output, replace_when_done
from bridgeta_ros.bags.storage.definitions import Decoder, find_ros_type
from bridgeta_ros.bags.storage.files import decompress_message, open_data_file
from bridgeta_ros.bags.storage.foxglove import TRANSLATIONS
from bridgeta_ros.bags.storage.metadata import Metadata, list_files, read_metadata
from bridgeta_ros.bags.storage.topic import DataFile, RecordedTopic
from bridgeta_ros.pipeline.messages import RosbagsFactory
from bridgeta_ros.pipeline.topics import GROUND_TRUTH, OCCUPANCY_GRID, TF, TF_MESSAGE, TF_STATIC

Storage = Literal["mcap", "sqlite3"]
Distro = Literal["jazzy", "humble"]

_STORES: dict[str, tuple[Stores, Literal[8, 9]]] = {
    "jazzy": (Stores.ROS2_JAZZY, 9),
    # Humble reads the quality of service of version 8, and not that of version 9.
    "humble": (Stores.ROS2_HUMBLE, 8),
}
_METADATA = "metadata.yaml"
_SUMMARY = "the summary"
_LATEST = 2**63 - 1  # ns, of a recording: SQLite's and ROS's integers end there
_FOREVER = QosTime(9223372036, 854775807)


def make_qos(*, latched: bool = False, depth: int = 10) -> Qos:
    """Make a reliable, keep-last QoS; `latched` is transient local: late subscribers still get the last message."""
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


class BagReader:
    """An open ROS 2 bag. It is streamed: little more than the current message is in memory.

    The data files decide what is read. `topics` are those of ROS messages by type, `foreign` those of other encodings.
    `remarks` says where metadata.yaml and summaries promise something else than the files hold.
    """

    def __init__(self, path: Path, files: Sequence[DataFile], metadata: Metadata, remarks: Sequence[str] = ()) -> None:
        self.path, self._files, self._decoder = path, files, Decoder(metadata.hashes)
        self._remarks = list(remarks)
        self._passed_over = Counter[tuple[str, str]]()  # messages that no other program could read, by topic and reason
        recorded = [topic for file in files for topic in file.topics]
        self.topics: dict[str, str] = {t.topic: kind for t in recorded if (kind := find_ros_type(t)) is not None}
        self.foreign = {t.topic: t for t in recorded if t.topic not in self.topics}
        self._promises = {"metadata.yaml": metadata.counts} if metadata.counts else {}
        counts = [file.counts for file in files if file.counts is not None]
        if len(counts) == len(files):
            self._promises[_SUMMARY] = dict(sum(counts, Counter()))
        lost = [name for name, count in metadata.counts.items() if count and name not in {t.topic for t in recorded}]
        if lost:
            self._remarks.append(f"metadata.yaml lists {join_first(lost)}, which the data files do not hold")

    @property
    def remarks(self) -> list[str]:
        """What the user should know about the bag, as far as it has been read."""
        passed = [f"{n} messages on {name} were passed over: {why}" for (name, why), n in self._passed_over.items()]
        return [*self._remarks, *self._decoder.remarks, *passed]

    def find_transforms(self) -> list[str]:
        """Return the topics of transforms that are in the bag."""
        return [topic for topic in (TF, TF_STATIC) if self.topics.get(topic) == TF_MESSAGE]

    def find_truths(self) -> list[str]:
        """Return the topics of ground-truth grids that are in the bag."""
        wanted = [f"{GROUND_TRUTH}/{name}" for name in CLASS_NAMES]
        return [topic for topic in wanted if self.topics.get(topic) == OCCUPANCY_GRID]

    def remark(self, text: str) -> None:
        """Add a remark unless it is there."""
        if text not in self._remarks:
            self._remarks.append(text)

    def count(self, topics: Collection[str]) -> int | None:
        """Count the messages of some topics by what summaries and metadata say; None if a summary does not say."""
        promises = self._promises.values()
        known = _SUMMARY in self._promises
        return sum(max(p.get(topic, 0) for p in promises) for topic in topics) if known else None

    def raw(self, topics: Collection[str]) -> Iterator[tuple[RecordedTopic, int, bytes]]:
        """Yield serialised messages of some topics with their recording times in nanoseconds, in that order."""
        counts, passed = Counter[str](), Counter[tuple[str, str]]()
        with _translate_errors(self.path):
            for topic, time, data in _merge(self._files, topics):
                counts[topic.topic] += 1
                if find_ros_type(topic) is None:
                    continue
                try:
                    if not 0 <= time <= _LATEST:
                        raise BridgeTAError("their times of recording are none")
                    message = decompress_message(data)
                except BridgeTAError as error:
                    passed[topic.topic, error.what] += 1
                    continue
                yield topic, time, message
        self._passed_over |= passed  # the larger: a bag is read several times
        self._compare(topics, counts)

    def first(self, topic: str) -> Any | None:
        """Return the first valid message of a topic, or None."""
        for recorded, _, data in self.raw({topic}):
            try:
                return self.decode(recorded, data)
            except BridgeTAError:  # it is met and counted again where all messages are read
                continue
        return None

    def decode(self, topic: RecordedTopic, data: bytes) -> Any:
        """Deserialise a message. Raises BridgeTAError when the data does not fit its type."""
        try:
            return self._decoder.decode(topic, data)
        except BridgeTAError as error:
            raise BridgeTAError(error.what, where=self.path, fix=error.fix) from error

    def encode(self, topic: RecordedTopic, data: bytes) -> bytes | memoryview:
        """Return a message as ROS 2 serialises it, which most are already. Raises BridgeTAError as `decode` does."""
        return self._decoder.encode(topic, data)

    def _compare(self, topics: Collection[str], counts: Counter[str]) -> None:
        """Remark on topics, read to their end, of which another number of messages is promised."""
        for source, promised in self._promises.items():
            wrong = [t for t in sorted(topics) if t in promised and promised[t] != counts[t]]
            listed = join_first([f"{topic} {counts[topic]} (not {promised[topic]})" for topic in wrong])
            remark = f"the bag holds other numbers of messages than {source} says: {listed}"
            if wrong:
                self.remark(remark)


def _merge(files: Sequence[DataFile], topics: Collection[str]) -> Iterator[tuple[RecordedTopic, int, bytes]]:
    """Merge the messages of data files by time. A file is opened only when its first message is due."""
    waiting = sorted(files, key=lambda file: file.start_ns, reverse=True)
    due: list[tuple[int, int, tuple[RecordedTopic, int, bytes], Iterator[tuple[RecordedTopic, int, bytes]]]] = []
    order = count()
    while due or waiting:
        if waiting and (not due or waiting[-1].start_ns <= due[0][0]):
            stream = waiting.pop().messages(topics)
        else:
            _, _, message, stream = heappop(due)
            yield message
        following = next(stream, None)
        if following is not None:
            heappush(due, (following[1], next(order), following, stream))


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Turn what the libraries and the file system raise about a broken bag into one BridgeTAError."""
    try:
        yield
    except BridgeTAError as error:
        if error.where is not None:
            raise
        raise BridgeTAError(error.what, where=path, fix=error.fix) from error
    except Exception as error:  # on damaged bytes the libraries' parsers raise whatever they stumble over
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise BridgeTAError(
            f"cannot be read as a ROS 2 bag ({reason})",
            where=path,
            fix="If its recording was cut off, `mcap recover` or `ros2 bag reindex` may save the rest",
        ) from error


@contextmanager
def open_bag(path: Path) -> Iterator[BagReader]:
    """Open a bag folder (or its metadata.yaml), or a single data file: MCAP or SQLite, also compressed by zstd.

    Raises BridgeTAError when there is none, when it is something else (a ROS 1 bag, a Git LFS pointer, ...), and when
    it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise BridgeTAError("does not exist", where=path)
    path = path.parent if path.name == "metadata.yaml" else path
    remarks: list[str] = []
    with ExitStack() as stack:
        metadata, files = Metadata(), [path]
        with _translate_errors(path):
            if path.is_dir():
                metadata = read_metadata(path, remarks)
                files = list_files(path, metadata, remarks)
            _require_files(path, files, metadata)
            opened = [open_data_file(file, stack, metadata.storage) for file in files]
            bag = BagReader(path, opened, metadata, remarks)
        _require_ros2(bag)
        yield bag


def _require_files(path: Path, files: Sequence[Path], metadata: Metadata) -> None:
    if files:
        return
    if any(path.glob("*.bag")):
        raise BridgeTAError("holds ROS 1 bags", where=path, fix="Convert them: `rosbags-convert --src *.bag --dst out`")
    if metadata.files or metadata.storage:
        stored = f" (storage {metadata.storage!r})" if metadata.storage not in ("", "mcap", "sqlite3") else ""
        raise BridgeTAError(
            f"has no data file beside its metadata.yaml{stored}", where=path, fix="Copy the whole folder"
        )
    inner = sorted(folder.parent.name for folder in path.glob("*/metadata.yaml"))
    if inner:
        raise BridgeTAError(f"holds bags, but is none: {join_first(inner)}", where=path, fix="Give one of these")
    raise BridgeTAError("is not a ROS 2 bag (it has neither metadata.yaml nor .mcap or .db3 files)", where=path)


def _require_ros2(bag: BagReader) -> None:
    """Raise BridgeTAError with advice when a bag holds only messages of something else than ROS 2."""
    if bag.topics or not bag.foreign:
        return
    encodings = {topic.encoding for topic in bag.foreign.values()}
    kinds = join_first(sorted({topic.msgtype for topic in bag.foreign.values()}))
    raise BridgeTAError(
        f"holds no ROS 2 messages, but {', '.join(sorted(encodings))} ({kinds})",
        where=bag.path,
        fix=describe_conversion(encodings),
    )


def describe_conversion(encodings: Collection[str]) -> str:
    """Say how messages of these encodings become those of ROS 2."""
    if "ros1" in encodings:
        return "Convert the ROS 1 bag that it was made of: `rosbags-convert --src FILE.bag --dst FOLDER`"
    known = ", ".join(name.partition(".")[2] for name in TRANSLATIONS)
    return f"Record the ROS 2 topics themselves; of protobuf, Foxglove's {known} are read"


class BagWriter:
    """A bag being written. Its `factory` makes the messages that `write` takes."""

    def __init__(self, writer: Writer, typestore: Typestore) -> None:
        self._writer, self._typestore = writer, typestore
        self.factory = RosbagsFactory(typestore)
        self._connections: dict[str, Connection] = {}

    def add_topic(self, topic: str, msgtype: str, profile: Qos | None = None) -> None:
        """Declare a topic; by default it is reliable and keeps the last 10 messages."""
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, typestore=self._typestore, offered_qos_profiles=[profile or make_qos()]
        )

    def serialise(self, topic: str, message: Any) -> memoryview:
        """Serialise a message for its topic."""
        return memoryview(self._typestore.serialize_cdr(message, self._connections[topic].msgtype))

    def write_raw(self, topic: str, ns: int, data: bytes | memoryview) -> None:
        """Write a serialised message at a time in nanoseconds."""
        self._writer.write(self._connections[topic], ns, data)

    def write(self, topic: str, ns: int, message: Any) -> None:
        """Write a message at a time in nanoseconds."""
        self.write_raw(topic, ns, self.serialise(topic, message))


@contextmanager
def create_bag(
    out: Path,
    storage: Storage = "mcap",
    distro: Distro = "jazzy",
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> Iterator[tuple[BagWriter, Path]]:
    """Write a bag folder that appears at `out` only if the block ends without an error.

    Yields the writer and the folder that will become `out`, for files beside the bag's own. Raises BridgeTAError
    when `out` exists and `overwrite` is off, when it is not a bag or holds one of the `inputs`, and when the disk is
    full.
    """
    for value, choices, name in ((storage, get_args(Storage), "storage"), (distro, get_args(Distro), "distro")):
        if value not in choices:
            raise BridgeTAError(f"{name} {value!r} is not one of {', '.join(choices)}", exit_code=2)
    out = check_output(Path(out), folder=True, inputs=inputs, sign=_METADATA)
    store, version = _STORES[distro]
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with replace_when_done(out, overwrite=overwrite, folder=True, sign=_METADATA) as folder:
        # The library names its data file after the folder that it writes, so this one needs the final name already.
        inner = folder / out.name
        try:
            with Writer(inner, version=version, storage_plugin=plugin) as writer:
                yield BagWriter(writer, get_typestore(store)), folder
        except sqlite3.Error as error:
            raise BridgeTAError(
                f"cannot be written ({error})", where=out, fix="Check the free space of that folder"
            ) from error
        for file in inner.iterdir():
            shutil.move(file, folder / file.name)
        inner.rmdir()


@contextmanager
def progress_bar(enabled: bool = True) -> Iterator[Progress]:
    """Show a bar on standard error, so that what a command prints can be piped."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not enabled) as progress:
        yield progress
