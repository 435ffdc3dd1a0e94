"""Opening of a bag's data files, and advice on files that are none.

A file is known by its first bytes, whatever its name and its metadata.yaml say. No message definition is read here.
"""

from __future__ import annotations

import errno
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.storage.mcap_file import McapFile
from bridgeta_ros.bags.storage.sqlite_file import SqliteFile
from bridgeta_ros.bags.storage.topic import DataFile

_PIECE = 4096  # compressed bytes that are unpacked at once: at zstd's best they are 128 MB
_LARGEST_MESSAGE = 2**28  # bytes; a raw image of 8K in float has half of it
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MCAP_MAGIC, _SQLITE_MAGIC, _ROS1_MAGIC = b"\x89MCAP", b"SQLite format 3\0", b"#ROSBAG"


def open_data_file(path: Path, stack: ExitStack, storage: str = "") -> DataFile:
    """Open a data file until `stack` closes. A file that zstd compressed is unpacked to a temporary folder first.

    Raises BridgeTAError with advice for what is neither MCAP nor SQLite, such as a file of the plugin `storage`, and
    for what was cut off; the parsers raise their own on other damage.
    """
    head, unpacked = _read_head(path), path
    try:
        if head.startswith(_ZSTD_MAGIC):
            unpacked = _unpack(path, Path(stack.enter_context(TemporaryDirectory(prefix="bag-"))))
            head = _read_head(unpacked)
        if head.startswith(_MCAP_MAGIC):
            file: DataFile = McapFile(unpacked)
        elif head.startswith(_SQLITE_MAGIC):
            file = SqliteFile(unpacked)
        else:
            what, fix = _describe_other(unpacked, head, storage)
            raise BridgeTAError(what, fix=fix)
    except BridgeTAError as error:
        raise BridgeTAError(error.what, where=path, fix=error.fix) from error
    stack.callback(file.close)
    return file


def _read_head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(64)


def _unpack(path: Path, folder: Path) -> Path:
    out = folder / path.name.removesuffix(".zstd").removesuffix(".zst")
    room = shutil.disk_usage(folder).free * 9 // 10
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    try:
        with path.open("rb") as stream, out.open("wb") as target:
            while block := stream.read(_PIECE):
                if target.tell() > room:
                    raise OSError(errno.ENOSPC, f"it has more than the {room / 1e9:,.1f} GB that may be filled")
                while block:  # a file may have several frames
                    if unpacker.eof:
                        unpacker = zstandard.ZstdDecompressor().decompressobj()
                    target.write(unpacker.decompress(block))
                    block = unpacker.unused_data
        problem = "" if unpacker.eof else "it was cut off"
    except OSError as error:
        problem = error.strerror or str(error)
    except zstandard.ZstdError as error:
        problem = str(error)
    if problem:
        raise BridgeTAError(
            f"cannot be unpacked ({problem})",
            fix=f"Give a whole file, and TMPDIR a folder with space, or unpack it yourself: `zstd -d {path.name}`",
        )
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
    """Unpack a message that rosbag2 compressed by itself. The first byte of others is 0.

    Raises BridgeTAError for what is damaged, or larger than any message.
    """
    if not data.startswith(_ZSTD_MAGIC):
        return data
    result, unpacker = bytearray(), zstandard.ZstdDecompressor().decompressobj()
    try:
        # A frame may promise its size, which the library then holds it to; rosbag2's do.
        promised = zstandard.frame_content_size(data)
        piece = len(data) if 0 <= promised <= _LARGEST_MESSAGE else _PIECE
        for start in range(0, len(data), piece):
            if unpacker.eof or len(result) > _LARGEST_MESSAGE:
                break
            result += unpacker.decompress(data[start : start + piece])
    except zstandard.ZstdError as error:
        raise BridgeTAError(f"cannot be unpacked ({error})") from error
    if len(result) > _LARGEST_MESSAGE:
        raise BridgeTAError(f"unpacks to more than {_LARGEST_MESSAGE:,} bytes")
    return bytes(result)
