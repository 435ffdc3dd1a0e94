"""A root in the making: a folder beside it that an interrupted run leaves behind and the next run resumes."""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import flush, hold_lock
from bridgeta_core.utils.outputs import clean_leftovers, discard, move_into_place, replace_when_done
from bridgeta_synth.settings import WORLD_VERSION, SynthSettings

logger = logging.getLogger(__name__)

_STATE, _LOCK = "state.json", ".lock"


class Checkpoint:
    """`<out>.partial`, of which `root` will become `out`; `finished` holds what is known of every finished task.

    A task is listed exactly when all its files are on the disk, with their checksums. state.json holds the settings,
    since tasks of other settings do not fit.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".partial")
        self.root, self.finished = self.folder / "root", self.folder / "parts"

    @contextmanager
    def opened(self, settings: SynthSettings, device: str, discard: bool) -> Iterator[None]:
        """Create the folder, or resume that of an interrupted run of the same settings, for this process alone.

        Raises BridgeTAError when it holds something else, a run of other settings (unless `discard` allows its
        removal), or when another process is using it.
        """
        wanted = {"world": WORLD_VERSION, "device": device, "settings": asdict(settings)}
        clean_leftovers(self.folder.parent)
        if self.folder.exists():
            self._read_state()  # refuse a folder of something else before anything is written to it
        with self._locked():
            found = self._read_state()
            if found is not None and {key: found.get(key) for key in wanted} != wanted:
                if not discard:
                    raise BridgeTAError(
                        f"is of an interrupted run that differs: {_describe_differences(found, wanted)}",
                        where=self.folder,
                        fix="Repeat that run's command to go on with it, or remove the folder, or start again with "
                        "--overwrite",
                        exit_code=2,
                    )
                for path in (self.finished, self.root):  # in this order no task is listed without its files
                    if path.exists():
                        shutil.rmtree(path)
            _write(self.folder / _STATE, json.dumps(wanted, indent=2))
            self.finished.mkdir(exist_ok=True)
            self.root.mkdir(exist_ok=True)
            yield

    def _locked(self) -> AbstractContextManager[int]:
        return hold_lock(self.folder / _LOCK, wait=False, busy="another process is writing here", fix="Wait for it")

    def _read_state(self) -> dict[str, Any] | None:
        try:
            state = json.loads((self.folder / _STATE).read_text())
        except FileNotFoundError:
            state = None
            if all(path.name == _LOCK or path.suffix in (".partial", ".tmp") for path in self.folder.iterdir()):
                return None  # a run that stopped before it began
        except ValueError:
            state = None
        if not isinstance(state, dict) or "settings" not in state:
            fix = "Remove it, or write to another folder"
            raise BridgeTAError("was not left by an interrupted synth", where=self.folder, fix=fix, exit_code=2)
        return state

    def has(self, name: str) -> bool:
        """Tell whether a task is finished: listed, with all its files as they were written."""
        if not self._locate(name).exists():
            return False
        try:
            files = self._read(name)["files"]
            whole = all(_compute_checksum(self.root / path) == checksum for path, checksum in files.items())
        except (ValueError, FileNotFoundError):
            whole = False
        if not whole:
            logger.warning("%s: %s was damaged after it had been written, and is made again", self.folder, name)
        return whole

    def load(self, name: str) -> dict[str, Any]:
        """Load what was saved of a task."""
        content: dict[str, Any] = self._read(name)["content"]
        return content

    def save(self, name: str, content: dict[str, Any], files: Iterable[Path]) -> None:
        """Mark a task as finished, once its files are on the disk."""
        files = list(files)
        flush(*files)
        checksums = {str(path.relative_to(self.root)): _compute_checksum(path) for path in files}
        text = json.dumps({"files": checksums, "content": content})
        _write(self._locate(name), f"{zlib.crc32(text.encode()):08x} {text}")

    def _locate(self, name: str) -> Path:
        return self.finished / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any]:
        """Read what is known of a task. Raises ValueError when it is not what was written."""
        checksum, _, text = self._locate(name).read_bytes().partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            raise ValueError(f"{name} is damaged")
        known: dict[str, Any] = json.loads(text)
        return known

    def publish(self) -> None:
        """Put the root in the place of `out` and remove the rest.

        The state says which folder is about to move, so that after a kill the next run knows whether it has.
        """
        flush(self.root)
        state = {**(self._read_state() or {}), "published": _identify(self.root)}
        _write(self.folder / _STATE, json.dumps(state, indent=2))
        move_into_place(self.root, self.out)
        flush(self.out.parent)
        discard(self.folder)

    def clear_published(self) -> None:
        """Remove what a run left that was killed after its root had become `out`, where its tasks are still listed."""
        if self.out.is_dir() and self.folder.exists() and self._is_published():
            with self._locked():
                if self._is_published():  # and no other process has begun anew meanwhile
                    discard(self.folder)

    def _is_published(self) -> bool:
        state = self._read_state()
        return state is not None and state.get("published") == _identify(self.out)


def _identify(folder: Path) -> list[int]:
    """Return what a folder keeps when it is renamed."""
    status = folder.stat()
    return [status.st_dev, status.st_ino]


def _compute_checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            checksum = zlib.crc32(data, checksum)
    return checksum


def _write(path: Path, text: str) -> None:
    with replace_when_done(path, durable=True) as temporary:
        temporary.write_text(text)


def _describe_differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = {"world": "version of the synthetic world", "device": "device"}
    pairs = [(text, found.get(key), wanted[key]) for key, text in names.items()]
    pairs += [(key, found["settings"].get(key), value) for key, value in wanted["settings"].items()]
    return ", ".join(f"{name} {there!r} instead of {here!r}" for name, there, here in pairs if there != here)
