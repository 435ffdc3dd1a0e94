"""The ONNX graphs of students in the cache of derived files: written once for each network, and checked when read."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from bridgeta_core.deploy.backends.graphs import OPSET, export_onnx, split
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import cache_folder, hash_json
from bridgeta_core.utils.outputs import build_once, discard

logger = logging.getLogger(__name__)

_FORMAT = 1  # of the graphs; another one makes them anew
_DIGESTS = "digests.json"


def find_folder(digest: str) -> Path:
    """Return the folder of the cache for what is derived from the student with the digest of `hash_weights`."""
    return cache_folder() / "graphs" / hash_json([_FORMAT, OPSET, torch.__version__, digest])


def load_graphs(digest: str, build: Callable[[], Student]) -> dict[str, bytes]:
    """Load a student's parts as ONNX by name, from the cache or, the first time, by PyTorch's exporter.

    Damaged files are made anew. Where the cache cannot be written the graphs are made at every start, and a warning
    says so. Raises BridgeTAError as `export_onnx` does.
    """
    folder = find_folder(digest)
    if folder.exists():
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: the cached graphs are damaged and made anew (%s)", folder, error)
            discard(folder)
    with tempfile.TemporaryDirectory() as name:
        graphs = {}
        for part in split(build()):
            path = Path(name) / f"{part.NAME}.onnx"
            export_onnx(part, path)
            graphs[part.NAME] = path.read_bytes()
    try:
        _write(folder, graphs)
    except BridgeTAError as error:
        logger.warning("the graphs cannot be cached, so the next start is as slow as this one: %s", error)
    return graphs


def _read(folder: Path) -> dict[str, bytes]:
    """Read the graphs in a folder. Raises ValueError, KeyError or TypeError for other bytes than were written."""
    digests: Mapping[str, str] = json.loads((folder / _DIGESTS).read_text())
    graphs = {name: (folder / f"{name}.onnx").read_bytes() for name in ("image", "bev")}
    for name, data in graphs.items():
        if hashlib.sha256(data).hexdigest() != digests[name]:
            raise ValueError(f"{name}.onnx has other bytes than were written")
    return graphs


def _write(folder: Path, graphs: Mapping[str, bytes]) -> None:
    with build_once(folder) as temporary:
        for name, data in graphs.items():
            (temporary / f"{name}.onnx").write_bytes(data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
        (temporary / _DIGESTS).write_text(json.dumps(digests))
