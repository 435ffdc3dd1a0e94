"""Names from outside, of tables, bags and weights, as parts of paths: they never lead out of their folder."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

_UNSAFE = re.compile(r"[^\w.+-]+")
_LONGEST = 100  # bytes; what is added to a name has room below the 255 of file systems


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of one file or folder in another."""
    return text not in ("", ".", "..") and not {"/", "\\", "\0"} & set(text) and len(os.fsencode(text)) <= 255


def leads_outside(path: str) -> bool:
    """Tell whether a path leads out of the folder that it is relative to, as written; links are the user's own."""
    return "\0" in path or path.startswith("/") or ".." in PurePosixPath(path).parts


def make_name(text: str) -> str:
    """Make of any text a part of a file name that people recognise; different texts may give the same."""
    name = _UNSAFE.sub("_", text).lstrip(".")
    return os.fsencode(name)[:_LONGEST].decode(errors="ignore") or "_"
