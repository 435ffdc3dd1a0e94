"""How much a description from outside may ask for: it is measured before anything is built of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

MOST_CAMERAS = 64
MOST_CELLS = 2**22  # of a grid: 200 m x 200 m in cells of 0.1 m fit
DEEPEST = 20  # levels of nesting of YAML and of settings; ours have eight
MOST_NODES = 300_000  # of a YAML document, aliases written out; metadata.yaml of 10,000 data files has half of it
MOST_SETTINGS = 5_000  # of a YAML document of settings, each of which costs OmegaConf a millisecond
LARGEST_TEXT = 2**26  # bytes of a YAML file or of a replay's summary
LARGEST_MAP = 2**28  # bytes of a city's map; the largest of nuScenes has 4e7

_BLOCK = 1 << 20  # bytes read at a time
_INTEGER = 2**63


def read_limited(path: str | Path, most: int) -> bytes:
    """Read a file of at most `most` bytes. Raises OSError when it cannot be read, and ValueError for a larger one."""
    content = bytearray()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):  # not by its size, which pipes and devices do not have
            content += block
            if len(content) > most:
                raise ValueError(f"it has more than {most:,} bytes")
    return bytes(content)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for text that is none, and for nesting that no description has."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class BoundedComposer(yaml.composer.Composer):
    """Composes YAML of limited nesting and size, to be named before a loader among the bases of a class.

    An alias counts as much as what it stands for: ten lines of aliases of aliases expand to gigabytes. The depth is
    also what the library's time grows with, by its square.
    """

    most = MOST_NODES

    def compose_document(self) -> Any:
        """Compose a document. Raises ComposerError for one that is nested too deeply, too large or part of itself."""
        self.anchors: dict[str, yaml.Node] = {}
        self._depth = self._count = 0
        self._sizes: dict[int, int] = {}  # nodes below each node, by its id
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node and count it."""
        events: Any = self  # the parser is another base of the loader
        is_alias, mark = events.check_event(yaml.AliasEvent), events.peek_event().start_mark
        before = self._count
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._count += 1
            self._sizes[id(node)] = self._count - before
        elif id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias stands for what it is part of", mark)
        else:
            self._count += self._sizes[id(node)]
        if self._count > self.most:
            raise yaml.composer.ComposerError(None, None, f"more than {self.most:,} values", mark)
        return node


_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FastLoader(BoundedComposer, _PARSER):
    """A safe and bounded loader, several times as fast where PyYAML has libyaml; it names faults less well."""

    def __init__(self, stream: str) -> None:
        _PARSER.__init__(self, stream)


class SettingsLoader(FastLoader):
    """A safe loader of settings, which are few."""

    most = MOST_SETTINGS


def check_plain(value: Any) -> None:
    """Check the settings in a description, which are plain values.

    Raises ValueError for nesting beyond `DEEPEST`, for more than MOST_SETTINGS values, for numbers beyond 64 bits, for
    texts that OmegaConf would take for references to other values or to the environment, and for what YAML knows
    besides: dates, bytes, sets.
    """
    level, depth, count = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if count > MOST_SETTINGS:
            raise ValueError(f"it has more than {MOST_SETTINGS:,} values")
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following += [*item, *item.values()]
            elif isinstance(item, list):
                following += item
            elif isinstance(item, int) and not -_INTEGER <= item < _INTEGER:
                raise ValueError("a number has more than 64 bits")
            elif isinstance(item, str) and "${" in item:
                raise ValueError(f"{item[:40]!r} is a reference")
            elif item is not None and not isinstance(item, (str, int, float)):
                raise ValueError(f"{str(item)[:40]} is a {type(item).__name__}")
        level = following


def select_fields(kind: type, content: Any) -> dict[str, Any]:
    """Return those of parsed values that are fields of the dataclass `kind`, if their types are.

    Types are int, float, str, lists and mappings of them, and None. Raises ValueError that names what does not fit.
    """
    if not isinstance(content, Mapping):
        raise ValueError("it holds no mapping")
    hints = get_type_hints(kind)
    chosen = {f.name: content[f.name] for f in fields(kind) if f.name in content}
    for name, value in chosen.items():
        if (misfit := _find_misfit(value, hints[name], name)) is not None:
            raise ValueError(misfit)
    return chosen


def _find_misfit(value: Any, kind: Any, place: str) -> str | None:
    """Say which part of a value is not of a type; None if all are."""
    inner = get_args(kind)
    match get_origin(kind):
        case None:
            return None if _is_plain(value, kind) else f"{place} is {repr(value)[:40]}, not {kind.__name__}"
        case origin if origin is list:
            if not isinstance(value, list):
                return f"{place} is {repr(value)[:40]}, not a list"
            found = (_find_misfit(item, inner[0], f"{place}[{i}]") for i, item in enumerate(value))
        case origin if origin is dict:
            if not isinstance(value, dict):
                return f"{place} is {repr(value)[:40]}, not a mapping"
            found = (_find_misfit(item, inner[1], f"{place}.{key[:40]}") for key, item in value.items())
        case _:  # one of several
            misfits = [_find_misfit(value, choice, place) for choice in inner]
            return misfits[0] if all(misfits) else None
    return next((misfit for misfit in found if misfit is not None), None)


def _is_plain(value: Any, kind: type) -> bool:
    if kind is NoneType or kind is str:
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if isinstance(value, float):
        return kind is float and math.isfinite(value)
    return -_INTEGER <= value < _INTEGER
