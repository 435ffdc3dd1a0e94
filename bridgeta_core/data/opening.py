"""Which class reads a dataset: nuScenes' own, or one of the user's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from bridgeta_core.data.nuscenes.index import SampleIndex
from bridgeta_core.data.samplelist import reading
from bridgeta_core.data.source import Source
from bridgeta_core.utils.errors import BridgeTAError


def open_source(name: str, root: str | Path, version: str) -> Source:
    """The dataset in `root`: "nuscenes", or "module:Class", a subclass of `SampleList` that takes root and version.

    Raises BridgeTAError (exit code 2) when there is no such class, and what the class raises.
    """
    if name == "nuscenes":
        return SampleIndex.open(root, version)
    module, _, attribute = name.partition(":")
    fix = "Give nuscenes, or module:Class with the module's folder on PYTHONPATH"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BridgeTAError(f"the source {name!r} cannot be imported ({error})", fix=fix, exit_code=2) from error
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise BridgeTAError(f"the source {name!r} is no subclass of {Source.__name__}", fix=fix, exit_code=2)
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise BridgeTAError("is not a folder", where=root, fix="Give the root of the dataset", exit_code=2)
    make: Callable[[Path, str], Source] = found
    with reading(name, root):
        return make(root, version)
