"""Remember what a start found out, the fastest back end and the size of its features, so that the next one is short.

A trial of all back ends needs the layers of the network, and these the library of its backbone: together some ten
seconds. The same network on the same machine with the same packages needs neither again.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bridgeta_core.deploy.backends.base import Network
from bridgeta_core.deploy.backends.choose import BACKENDS, Choice, choose_backend
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import cache_folder, hash_json
from bridgeta_core.utils.machine import read_cpu_name
from bridgeta_core.utils.outputs import replace_when_done

logger = logging.getLogger(__name__)

_FORMAT = 1  # of the notes; another one asks anew
_PACKAGES = ("torch", "openvino", "onnxruntime", "onnxruntime-gpu")


def choose_again(network: Network, name: str, device: torch.device, precision: str) -> Choice:
    """Choose a back end as `choose_backend` does, or as it did at an earlier start of the same network here.

    An earlier choice counts for the same weights, device, precision, processor, number of threads and versions of the
    packages. Where its back end cannot be built any more, the choice is made anew.
    """
    if name == "torch":  # needs the layers, and no trial
        return choose_backend(network, name, device, precision)
    path = _find_note(network, name, device, precision)
    if (note := _read(path)) is not None:
        network.known_feature_size = note["features"]
        try:
            return Choice(BACKENDS[note["backend"]](network, device, precision), note["reason"])
        except (BridgeTAError, RuntimeError) as error:
            network.known_feature_size = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            logger.warning("the back end of the last start, %s, fails and is chosen anew: %s", note["backend"], reason)
    choice = choose_backend(network, name, device, precision)
    reason = choice.reason if name != "auto" else f"{choice.reason}; tried on {date.today().isoformat()}"
    _write(path, {"backend": choice.backend.name, "reason": reason, "features": list(network.feature_size)})
    return choice


def _find_note(network: Network, name: str, device: torch.device, precision: str) -> Path:
    """Return the file for the choice of a back end; its name depends on all that the choice does."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    chip = read_cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device)
    here = [chip, torch.get_num_threads(), versions]
    key = [_FORMAT, network.digest, network.cameras, name, str(device), precision, here]
    return cache_folder() / "starts" / f"{hash_json(key)}.json"


def _read(path: Path) -> dict[str, Any] | None:
    """Read a note; None where there is none, or none that makes sense."""
    try:
        note = json.loads(path.read_text())
        height, width = map(int, note["features"])
        if height > 0 < width and note["backend"] in BACKENDS:
            return {"backend": note["backend"], "reason": str(note["reason"]), "features": (height, width)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: is damaged and made anew (%s)", path, error)
    return None


def _write(path: Path, note: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_done(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(note))
    except (BridgeTAError, OSError) as error:
        logger.warning("the choice of a back end cannot be cached, so the next start is as slow as this one: %s", error)
