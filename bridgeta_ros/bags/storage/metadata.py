"""metadata.yaml of a bag folder. It may have been edited by hand, so nothing that it says costs a message."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bridgeta_core.utils.errors import join_first
from bridgeta_core.utils.limits import LARGEST_TEXT, FastLoader, read_limited

_SUFFIXES = (".mcap", ".db3", ".zstd", ".zst")


@dataclass
class Metadata:
    """What metadata.yaml says, as far as it can be read."""

    files: list[str] = field(default_factory=list)
    storage: str = ""
    counts: dict[str, int] = field(default_factory=dict)  # messages by topic
    hashes: dict[str, str] = field(default_factory=dict)  # of the types, by topic


def read_metadata(folder: Path, remarks: list[str]) -> Metadata:
    """Read metadata.yaml as far as it can be; remark on what cannot."""
    metadata, path = Metadata(), folder / "metadata.yaml"
    if not path.exists():
        return metadata
    try:
        content = yaml.load(read_limited(path, LARGEST_TEXT).decode(), FastLoader)["rosbag2_bagfile_information"]
        metadata.files = [Path(str(name)).name for name in content["relative_file_paths"]]
        metadata.storage = str(content.get("storage_identifier") or "")
        for entry in content["topics_with_message_count"]:
            name = str(entry["topic_metadata"]["name"])
            metadata.counts[name] = metadata.counts.get(name, 0) + int(entry["message_count"])
            metadata.hashes[name] = str(entry["topic_metadata"].get("type_description_hash") or "")
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remarks.append(f"metadata.yaml is not as rosbag2 writes it ({type(error).__name__}: {reason[:120]})")
    return metadata


def list_files(folder: Path, metadata: Metadata, remarks: list[str]) -> list[Path]:
    """List the data files of a bag folder: those of its metadata, or all if it has none of them."""
    present = sorted(f for f in folder.iterdir() if set(f.suffixes) & {".mcap", ".db3"} and f.suffix in _SUFFIXES)
    names = [file.name for file in present]
    listed = [folder / name for name in dict.fromkeys(metadata.files)]
    missing = [file.name for file in listed if not file.is_file()]
    files = [file for file in listed if file.is_file()]
    if missing:
        remarks.append(f"metadata.yaml lists {join_first(missing)}, which is not in the folder")
    if not files:
        if len(present) > 1 or (present and missing):
            remarks.append(f"read without metadata.yaml, in the order of their times: {join_first(names)}")
        return present
    extra = [file.name for file in present if file not in files]
    if extra:
        remarks.append(f"{join_first(extra)} is not in metadata.yaml and was not read: see `ros2 bag reindex`")
    return files
