"""Read the tensors of a PyTorch checkpoint without running what is pickled in it, and tell whose they are."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory, join_first
from bridgeta_core.utils.files import hash_file

REPOSITORY = "mit-han-lab/bevfusion"
_WRAPPERS = ("state_dict", "model")  # keys under which checkpoints hold their tensors
_MOST_NUMBERS = 2**29  # Swin-L has 197 million
_DOWNLOAD = "Download it again: the file is damaged, or something else than a checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by name, on the CPU, and where they come from."""

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str

    @property
    def network(self) -> str:
        """What the tensors are of: "camera", "lidar" or "fusion", or "swin" for an image backbone alone.

        Raises BridgeTAError for a detector, and for what is of another project.
        """
        names = self.tensors.keys()
        if _has(names, "heads.object."):
            raise BridgeTAError(
                "is a detection network of BEVFusion (it has heads.object), which draws boxes and no map",
                where=self.path,
                fix="Download one of the segmentation checkpoints, such as camera-only-seg.pth",
                exit_code=2,
            )
        camera, lidar = _has(names, "encoders.camera."), _has(names, "encoders.lidar.")
        if _has(names, "heads.map.") and (camera or lidar):
            return "fusion" if camera and lidar else "camera" if camera else "lidar"
        if any(re.match(r"(backbone\.)?patch_embed\.", name) for name in names):
            return "swin"
        raise BridgeTAError(
            f"is no network of {REPOSITORY} and no Swin backbone; its tensors are {join_first(sorted(names), 3)}",
            where=self.path,
            fix="Name its camera-only, LiDAR-only or fusion checkpoint of map segmentation",
            exit_code=2,
        )

    def describe_origin(self) -> dict[str, Any]:
        """Describe for a weights file where its weights come from, and under which licence."""
        return {
            "imported_from": self.path.name,
            "sha256": self.sha256,
            "source": f"https://github.com/{REPOSITORY}",
            "licence": "Apache-2.0",
        }


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that PyTorch 0.4 or later wrote, with its tensors at its top level or in `state_dict`.

    Only tensors, plain values and NumPy's are built; a file that asks for anything else is refused before it gets it.
    Raises BridgeTAError for such a file, and for one that is missing, damaged, no checkpoint, or made for other classes
    than ours.
    """
    if not path.is_file():
        raise BridgeTAError("no such file", where=path, exit_code=2)
    content = _load(path)
    tensors = _find_tensors(content)
    if not tensors:
        raise BridgeTAError("holds no tensors by name", where=path, fix=_DOWNLOAD)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if numbers > _MOST_NUMBERS:  # a few bytes may stand for any number of equal ones
        raise BridgeTAError(f"holds {numbers:,} numbers, more than any such network has", where=path, fix=_DOWNLOAD)
    _check_classes(content, path)
    return Checkpoint(path, tensors, hash_file(path))


def _load(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise BridgeTAError("is a packed zip file, no checkpoint", where=path, fix=_DOWNLOAD)
        with _allow_numpy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it guesses at what a file that is no checkpoint might be
            return torch.load(path, map_location="cpu", weights_only=True)
    except BridgeTAError:
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise BridgeTAError(f"cannot be read ({_first_line(error)})", where=path, fix=_DOWNLOAD) from error
        raise BridgeTAError(
            f"asks for {wanted[1]}, which is not what weights are made of; nothing of it was run",
            where=path,
            fix=f"Download it again from {REPOSITORY}'s own page; of a file of your own save the state_dict alone",
        ) from error
    except Exception as error:  # of damaged files the libraries raise whatever they stumble over
        if describe_lack_of_memory(error):
            raise
        raise BridgeTAError(f"cannot be read ({_first_line(error)})", where=path, fix=_DOWNLOAD) from error


def _first_line(error: Exception) -> str:
    """Say in one line why PyTorch could not read a file, without its advice to read it unsafely."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    first = (text.splitlines() or [""])[0].partition(". ")[0]
    return first[:200] if any(map(str.isalpha, first)) else "it is no checkpoint of PyTorch"


def _allow_numpy() -> AbstractContextManager[None]:
    """Let PyTorch 2.6 and later rebuild NumPy's scalars and arrays, which training loops put beside the weights."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        return nullcontext()
    module = np.core if np.__version__.startswith("1.") else np._core  # type: ignore[attr-defined]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefdSU"}
    rebuild = module.multiarray._reconstruct
    names: list[Any] = [(module.multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    names += [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return torch.serialization.safe_globals([*names, np.ndarray, np.dtype, *kinds])


def _find_tensors(content: Any) -> dict[str, Tensor]:
    """Return the tensors by name, without the prefix of a wrapper for several GPUs."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        return {}
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _check_classes(content: Any, path: Path) -> None:
    """Raise BridgeTAError when a checkpoint says that its map classes are not ours, or in another order."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    text = str(meta.get("config", "")) if isinstance(meta, Mapping) else ""
    found = re.search(r"['\"]?map_classes['\"]?\s*[=:]\s*[\[(]([^\])]*)[\])]", text)
    if found is None:
        return
    classes = tuple(re.findall(r"[\w*]+", re.sub(r"#.*", "", found[1])))
    if classes != CLASS_NAMES:
        what = "in another order" if sorted(classes) == sorted(CLASS_NAMES) else "which are not ours"
        raise BridgeTAError(
            f"was trained for the classes {', '.join(classes)}, {what}",
            where=path,
            fix=f"Name a checkpoint for {', '.join(CLASS_NAMES)}",
        )


def _has(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
