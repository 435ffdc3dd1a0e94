"""Fetch weights and datasets of a hub: `hf://owner/name[@revision][/path]`, `hf://datasets/owner/name[@revision]`.

The hub is Hugging Face's, or one with its interface: HF_ENDPOINT names it. Files are kept in the cache of
huggingface_hub, which HF_HOME moves; HF_HUB_OFFLINE=1 asks nobody. A file is compared with its checksum in the hub.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bridgeta_core.utils.errors import BridgeTAError, read_message
from bridgeta_core.utils.files import cache_folder

_NAME = r"[A-Za-z0-9][\w.-]*"
# One slash where a path has made one of two.
_PLACE = re.compile(
    rf"hf:/{{1,2}}(?P<datasets>datasets/)?(?P<repo>{_NAME}/{_NAME})(@(?P<revision>[\w.-]+))?(/(?P<path>[^@]+))?"
)
_FORM = "Write hf://owner/name, hf://owner/name@revision or hf://owner/name@revision/path"


@dataclass(frozen=True)
class HubPlace:
    """A repository of a hub, at a revision (None: the newest), and a file or folder in it (None: all)."""

    repo: str
    revision: str | None = None
    path: str | None = None
    is_dataset: bool = False

    @property
    def kind(self) -> str:
        """What the hub calls such a repository."""
        return "dataset" if self.is_dataset else "model"

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        path = f"/{self.path}" if self.path else ""
        return f"hf://{'datasets/' if self.is_dataset else ''}{self.repo}{revision}{path}"


def is_hub_place(place: str | Path) -> bool:
    """Return whether a path or name means a place in a hub."""
    return str(place).startswith("hf:")


def parse_hub_place(place: str | Path) -> HubPlace:
    """Parse `hf://...`. Raises BridgeTAError (exit code 2) for what has another form."""
    found = _PLACE.fullmatch(str(place))
    parts = (found["path"] or "").split("/") if found else []
    if found is None or ".." in parts:
        raise BridgeTAError("is no place in a hub", where=place, fix=_FORM, exit_code=2)
    return HubPlace(found["repo"], found["revision"], found["path"], found["datasets"] is not None)


def fetch_file(place: str | Path, suffix: str) -> Path:
    """Fetch a file, or the only file with this suffix at the top of a repository, and return where it lies here.

    Raises BridgeTAError when there is none or several, when the hub cannot be asked and the cache has none, and when
    the file differs from its checksum.
    """
    where = parse_hub_place(place)
    folder = _fetch(where, where.path or f"*{suffix}")
    names = [where.path] if where.path else sorted(path.name for path in folder.glob(f"*{suffix}"))
    if len(names) > 1:
        fix = f"Name one: {replace(where, path=names[0])}"
        raise BridgeTAError(f"has {', '.join(names)}", where=str(where), fix=fix, exit_code=2)
    if not names or not (folder / names[0]).is_file():
        raise BridgeTAError(f"has no such file, or none that ends in {suffix}", where=str(where), exit_code=2)
    _verify(folder / names[0])
    return folder / names[0]


def fetch_folder(place: str | Path) -> Path:
    """Fetch a repository, or a folder in it, and return where it lies here. Raises BridgeTAError as `fetch_file`."""
    where = parse_hub_place(place)
    folder = _fetch(where, f"{where.path}/*" if where.path else None)
    root = folder / where.path if where.path else folder
    if not root.is_dir():
        raise BridgeTAError("has no such folder", where=str(where), exit_code=2)
    # A dataset has gigabytes, which are not read again at every start.
    note = cache_folder() / "hub" / hashlib.sha256(str(root.absolute()).encode()).hexdigest()
    if not note.exists():
        for path in sorted(root.rglob("*")):
            _verify(path)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    return root


def find_root(root: str | Path) -> Path:
    """Return the absolute path of a dataset's root, which is fetched where it is a place in a hub."""
    return fetch_folder(root) if is_hub_place(root) else Path(root).expanduser().resolve()


def _fetch(where: HubPlace, pattern: str | None) -> Path:
    # It is read at the import, and keeps the package from telling its makers what runs here.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download

    with explain_hub(where):
        folder = snapshot_download(
            where.repo, repo_type=where.kind, revision=where.revision, allow_patterns=pattern, library_name="bridgeta"
        )
    return Path(folder)


@contextmanager
def explain_hub(where: HubPlace) -> Iterator[None]:
    """Turn what huggingface_hub raises into a BridgeTAError that names the place."""
    from huggingface_hub import errors

    place = str(where)
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        fix = "Connect to it once, unset HF_HUB_OFFLINE, or give the path of a file"
        raise BridgeTAError("is not in the cache, and the hub cannot be asked", where=place, fix=fix) from error
    except errors.GatedRepoError as error:
        fix = "Ask for access on its page, then log in: hf auth login"
        raise BridgeTAError("is open only to those whom its owner admits", where=place, fix=fix) from error
    except errors.RepositoryNotFoundError as error:
        fix = "Check its name; a private one needs a login: hf auth login"
        raise BridgeTAError("no such repository", where=place, fix=fix, exit_code=2) from error
    except errors.RevisionNotFoundError as error:
        raise BridgeTAError(
            "no such revision", where=place, fix="Name a branch, a tag or a commit", exit_code=2
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        raise BridgeTAError(f"the hub did not answer as it should ({read_message(error)})", where=place) from error


def _verify(path: Path) -> None:
    """Compare a file with its checksum, after which the cache names it: SHA-256, or Git's SHA-1 of a small one."""
    if not path.is_file():
        return
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        digest = hashlib.sha256()
    elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
    else:  # on a file system without links, the cache keeps no checksums
        return
    with blob.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != blob.name:
        raise BridgeTAError("differs from its checksum in the hub", where=path, fix=f"Remove {blob}, and start again")
