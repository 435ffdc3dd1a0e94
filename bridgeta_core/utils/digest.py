"""What kept data depend on, as a short text that differs when any of it does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest(*parts: Any) -> str:
    """24 hexadecimal digits of plain values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def of_file(path: Path, root: Path) -> list[Any]:
    """Path below the root, size and time. A missing file, which has no size, is an error of who reads it."""
    try:
        status = path.stat()
    except OSError:
        return [str(path.relative_to(root)), None, None]
    return [str(path.relative_to(root)), status.st_size, status.st_mtime_ns]
