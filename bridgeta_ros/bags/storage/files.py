"""Opening of a bag's data files, and advice on files that are none.

A file is known by its first bytes, whatever its name and its metadata.yaml say. No message definition is read here.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.storage.mcap_file import McapFile
from bridgeta_ros.bags.storage.sqlite_file import SqliteFile
from bridgeta_ros.bags.storage.topic import DataFile

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MCAP_MAGIC, _SQLITE_MAGIC, _ROS1_MAGIC = b"\x89MCAP", b"SQLite format 3\0", b"#ROSBAG"


def open_data_file(path: Path, stack: ExitStack, storage: str = "") -> DataFile:
    """Open a data file until `stack` closes. A file that zstd compressed is unpacked to a temporary folder first.

    Raises BridgeTAError with advice for what is neither MCAP nor SQLite, such as a file of the plugin `storage`; the
    parsers raise their own on damage.
    """
    with path.open("rb") as stream:
        head = stream.read(64)
    if head.startswith(_ZSTD_MAGIC):
        path = _unpack(path, Path(stack.enter_context(TemporaryDirectory(prefix="bag-"))))
        with path.open("rb") as stream:
            head = stream.read(64)
    if head.startswith(_MCAP_MAGIC):
        file: DataFile = McapFile(path)
    elif head.startswith(_SQLITE_MAGIC):
        file = SqliteFile(path)
    else:
        what, fix = _describe_other(path, head, storage)
        raise BridgeTAError(what, where=path, fix=fix)
    stack.callback(file.close)
    return file


def _unpack(path: Path, folder: Path) -> Path:
    out = folder / path.name.removesuffix(".zstd").removesuffix(".zst")
    try:
        with path.open("rb") as stream, out.open("wb") as target:
            reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
            while block := reader.read(1 << 20):
                target.write(block)
    except (OSError, zstandard.ZstdError) as error:
        raise BridgeTAError(
            f"cannot be unpacked ({error})",
            where=path,
            fix=f"Give a whole file, and TMPDIR a folder with space, or unpack it yourself: `zstd -d {path.name}`",
        ) from error
    return out


def _describe_other(path: Path, head: bytes, storage: str) -> tuple[str, str | None]:
    """Say what a file is that is no data file of ROS 2, and what to do."""
    if head.startswith(_ROS1_MAGIC) or path.suffix == ".bag":
        return "is a ROS 1 bag", f"Convert it: `rosbags-convert --src {path.name} --dst {path.stem}`"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself", "Fetch the file: `git lfs pull`"
    if not head:
        return "is empty", "Copy or record it again"
    if head.startswith((b"PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "is an archive, not a bag", "Unpack it and give the folder or file inside"
    if path.suffix == ".mcap" or path.suffix == ".db3":
        return f"is not {'MCAP' if path.suffix == '.mcap' else 'SQLite'}, whatever its name says", "Copy it again"
    plugin = f", but of the storage plugin {storage!r}" if storage not in ("", "mcap", "sqlite3") else ""
    return (
        f"is neither MCAP nor SQLite{plugin}",
        "Convert it where it was recorded: `ros2 bag convert`, to storage_id mcap",
    )


def decompress_message(data: bytes) -> bytes:
    """Unpack a message that rosbag2 compressed by itself. The first byte of others is 0."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if data.startswith(_ZSTD_MAGIC) else data
