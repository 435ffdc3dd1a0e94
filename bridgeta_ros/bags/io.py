"""Reading and writing of ROS 2 bags through the `rosbags` library, with this project's errors."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import replace_when_done
from bridgeta_ros.pipeline.calibration import RigReader
from bridgeta_ros.pipeline.messages import RosbagsFactory
from bridgeta_ros.pipeline.topics import TF, TF_STATIC, CameraTopic

Storage = Literal["mcap", "sqlite3"]
Distro = Literal["jazzy", "humble"]

_STORES: dict[str, tuple[Stores, Literal[8, 9]]] = {
    "jazzy": (Stores.ROS2_JAZZY, 9),
    # Humble reads the quality of service of version 8, and not that of version 9.
    "humble": (Stores.ROS2_HUMBLE, 8),
}
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
    """An open ROS 2 bag. It is streamed: only the current message is in memory."""

    def __init__(self, path: Path, reader: AnyReader) -> None:
        self.path, self._reader = path, reader
        self.connections: tuple[Connection, ...] = tuple(reader.connections)
        self.topics: dict[str, str] = {c.topic: c.msgtype for c in self.connections}

    def connections_of(self, topics: Collection[str]) -> list[Connection]:
        """Return the connections of some topics."""
        return [c for c in self.connections if c.topic in topics]

    def count(self, topics: Collection[str]) -> int:
        """Count the messages of some topics."""
        return sum(c.msgcount for c in self.connections_of(topics))

    def raw(self, topics: Collection[str]) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield serialised messages of some topics with their recording times in nanoseconds, in that order."""
        connections = self.connections_of(topics)
        if not connections:
            return
        with _translate_errors(self.path):
            yield from self._reader.messages(connections)

    def decode(self, connection: Connection, data: bytes) -> Any:
        """Deserialise a message. Raises BridgeTAError when the data does not fit its type."""
        try:
            return self._reader.deserialize(data, connection.msgtype)
        except Exception as error:  # as in _translate_errors
            raise BridgeTAError(
                f"a message on {connection.topic} is not a valid {connection.msgtype}", where=self.path
            ) from error


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Turn what the library and the file system raise about a broken bag into one BridgeTAError."""
    try:
        yield
    except FileNotFoundError as error:
        raise BridgeTAError("is not a ROS 2 bag (it lacks metadata.yaml or a data file)", where=path) from error
    except Exception as error:  # on damaged bytes the library's parsers raise whatever they stumble over
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise BridgeTAError(
            f"cannot be read as a ROS 2 bag ({reason})",
            where=path,
            fix="If its recording was cut off, `mcap recover` or `ros2 bag reindex` may save the rest",
        ) from error


@contextmanager
def open_bag(path: Path) -> Iterator[BagReader]:
    """Open a bag folder, or a single .mcap or .db3 file.

    Raises BridgeTAError when there is none, when it is a ROS 1 bag, and when it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise BridgeTAError("does not exist", where=path)
    if path.suffix == ".bag":
        raise BridgeTAError("is a ROS 1 bag", where=path, fix="Convert it with `rosbags-convert`")
    source = path
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(f for f in path.iterdir() if f.suffix in (".mcap", ".db3"))
        if len(files) != 1:
            raise BridgeTAError("is not a ROS 2 bag (it has no metadata.yaml)", where=path)
        source = files[0]
    with _translate_errors(path):
        # Bags of Humble in SQLite hold no message definitions.
        reader = AnyReader([source], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    try:
        yield BagReader(path, reader)
    finally:
        reader.close()


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
    out: Path, storage: Storage = "mcap", distro: Distro = "jazzy", overwrite: bool = False
) -> Iterator[tuple[BagWriter, Path]]:
    """Write a bag folder that appears at `out` only if the block ends without an error.

    Yields the writer and the folder that will become `out`, for files beside the bag's own. Raises BridgeTAError
    when `out` exists and `overwrite` is off, when it is not a bag, and when the disk is full.
    """
    for value, choices, name in ((storage, get_args(Storage), "storage"), (distro, get_args(Distro), "distro")):
        if value not in choices:
            raise BridgeTAError(f"{name} {value!r} is not one of {', '.join(choices)}", exit_code=2)
    out = Path(out)
    if out.exists() and overwrite and not (out / "metadata.yaml").exists():
        raise BridgeTAError("is not a bag, so it is not replaced", where=out, fix="Name another output", exit_code=2)
    store, version = _STORES[distro]
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with replace_when_done(out, overwrite=overwrite) as folder:
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


def read_rig(bag: BagReader, cameras: Sequence[CameraTopic], base_frame: str) -> tuple[Rig, list[str]]:
    """Read the calibration of some cameras of a bag, from as much of the bag as is needed; also return remarks on it.

    Raises BridgeTAError for a camera without CameraInfo and for a missing link of TF.
    """
    by_info = {camera.info: camera.name for camera in cameras if camera.info is not None}
    without = [camera.image for camera in cameras if camera.info is None]
    if without:
        raise BridgeTAError(
            f"no CameraInfo beside {', '.join(without)}", where=bag.path, fix="Give --calibration rig.yaml"
        )
    reader = RigReader([camera.name for camera in cameras], base_frame)
    silent = set(by_info)
    for connection, _, data in bag.raw({*by_info, TF, TF_STATIC}):
        message = bag.decode(connection, data)
        if connection.topic in by_info:
            silent.discard(connection.topic)
            reader.add_info(by_info[connection.topic], message)
        else:
            reader.tree.add_message(message, static=connection.topic == TF_STATIC)
        if reader.complete:
            break
    if silent:
        raise BridgeTAError(f"no message on {', '.join(silent)}", where=bag.path, fix="Give --calibration rig.yaml")
    try:
        rig = reader.build_rig()
    except BridgeTAError as error:
        raise BridgeTAError(f"{error.where}: {error.what}", where=bag.path, fix=error.fix) from error
    return rig, reader.remarks


@contextmanager
def progress_bar(enabled: bool = True) -> Iterator[Progress]:
    """Show a bar on standard error, so that what a command prints can be piped."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not enabled) as progress:
        yield progress
