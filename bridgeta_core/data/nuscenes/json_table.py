"""A nuScenes table, a JSON list of records, as columns; read as a stream, so that gigabytes need little memory."""

from __future__ import annotations

import io
import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.errors import BridgeTAError

AGAIN = "Extract the metadata archive of this version again"

Columns = dict[str, NDArray[Any]]

_CHUNK = 1 << 16  # characters read at a time: their records stay in the processor's cache until they are columns
_LONGEST_RECORD = 1 << 20  # characters
_LONGEST_TEXT = 1000  # bytes; paths have about 100, and a column of fixed width must not be blown up by one value
_OPENING = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")


class Kind(NamedTuple):
    """What the values of a field are, in words, and how they become an array; that raises when a value does not fit."""

    words: str
    to_array: Callable[[Sequence[Any]], NDArray[Any]]


def _texts(values: Sequence[Any]) -> NDArray[np.bytes_]:
    texts = np.array([value.encode() for value in values])
    if texts.itemsize > _LONGEST_TEXT:
        raise ValueError
    return texts


def _of_type(dtype: type[np.generic]) -> Callable[[Sequence[Any]], NDArray[Any]]:
    def to_array(values: Sequence[Any]) -> NDArray[Any]:
        result = np.array(values)
        if result.dtype != dtype or result.ndim != 1:
            raise ValueError
        return result

    return to_array


TEXT = Kind(f"a text of at most {_LONGEST_TEXT} bytes", _texts)
INTEGER = Kind("a whole number", _of_type(np.int64))
FLAG = Kind("true or false", _of_type(np.bool_))


def numbers(*shape: int, or_empty: bool = False) -> Kind:
    """Finite numbers of a shape, as float64; with `or_empty` also an empty list, which becomes NaNs."""
    nothing = np.full(shape, np.nan).tolist()

    def to_array(values: Sequence[Any]) -> NDArray[np.float64]:
        empty = np.array([or_empty and value == [] for value in values])
        flat = [nothing if e else value for e, value in zip(empty, values, strict=True)] if empty.any() else values
        for size in shape:
            if {len(value) for value in flat} != {size}:
                raise ValueError
            flat = list(chain.from_iterable(flat))
        # Several times as fast as np.array on lists of lists, and it takes no digits in quotes for numbers.
        result = np.frombuffer(array("d", flat)).reshape(-1, *shape)
        if not (np.isfinite(result).reshape(len(result), -1).all(axis=1) | empty).all():
            raise ValueError
        return result

    size = " x ".join(map(str, shape))
    return Kind(f"a list of {size} finite numbers{' or an empty list' if or_empty else ''}", to_array)


def read_table(path: Path, fields: Mapping[str, Kind], read: Callable[[int], object] = lambda _: None) -> Columns:
    """The `fields` (two or more) of a table's n records as arrays `[n, ...]`; texts are UTF-8 bytes of fixed width.

    `read` is told how many bytes have been read so far. Raises BridgeTAError that names the file and the place for a
    table that cannot be read, is no JSON list of objects, was cut off, has no record, or whose record lacks a field or
    has a value of another kind. Numbers of records begin at 0.
    """
    get = itemgetter(*fields)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in fields}
    first = 0
    for records in _batches(path, read):
        try:
            columns = list(zip(*map(get, records), strict=True))
        except (KeyError, TypeError):
            raise _without_field(path, first, records, fields) from None
        for (name, kind), values in zip(fields.items(), columns, strict=True):
            try:
                parts[name].append(kind.to_array(values))
            except _UNFIT:
                raise _of_other_kind(path, first, name, kind, values) from None
        first += len(records)
    if not first:
        raise BridgeTAError("has no records", where=path, fix=AGAIN)
    # Popped, so that at most one column is in memory twice.
    return {name: np.concatenate(parts.pop(name)) for name in fields}


def _batches(path: Path, read: Callable[[int], object]) -> Iterator[list[Any]]:
    """The records of a table, some at a time."""
    decode = json.JSONDecoder().raw_decode
    separator, count = _OPENING, 0
    text, position = "", 0
    try:
        with open(path, "rb") as file:
            characters = io.TextIOWrapper(file, encoding="utf-8", newline="")
            while more := characters.read(_CHUNK):
                text, position = text[position:] + more, 0
                records = []
                while match := separator.match(text, position):
                    try:
                        record, position = decode(text, match.end())
                    except ValueError:  # a record that goes on in the next chunk, or what is no record
                        break
                    records.append(record)
                    separator = _COMMA
                place = f"record {count + len(records):,}, about byte {file.tell() - len(text) + position:,}"
                if not records and len(text) > _LONGEST_RECORD:
                    break
                if records:
                    yield records
                    count += len(records)
                read(file.tell())
    except OSError as error:
        raise BridgeTAError(f"cannot be read ({error.strerror})", where=path, fix=AGAIN) from error
    except UnicodeDecodeError as error:
        raise BridgeTAError(f"is not UTF-8 text after record {count:,}", where=path, fix=AGAIN) from error
    except RecursionError as error:
        raise BridgeTAError(f"is not a table: record {count:,} is nested too deeply", where=path, fix=AGAIN) from error
    rest = text[position:].strip(" \t\n\r")
    if rest == "]" or (not count and re.fullmatch(r"\[\s*\]", rest)):
        return
    if not rest and not count:
        what = "is empty"
    elif not count and not rest.startswith("["):
        what = f"is not a list of records; it begins with {rest[:20]!r}"
    elif more or rest.startswith("]") or rest.endswith("]"):
        what = f"is not JSON, perhaps damaged or truncated, at {place}"
    else:
        what = f"is not JSON, it is truncated: it ends in {place}"
    raise BridgeTAError(what, where=path, fix=AGAIN)


_UNFIT = (ValueError, TypeError, AttributeError, OverflowError)


def _without_field(path: Path, first: int, records: Sequence[Any], fields: Mapping[str, Kind]) -> BridgeTAError:
    """The error of the first of these records that is no object or lacks a field."""
    number, record = next((i, r) for i, r in enumerate(records) if not isinstance(r, dict) or fields.keys() - r.keys())
    if isinstance(record, dict):
        what = f"has no {', '.join(name for name in fields if name not in record)}"
    else:
        what = "is no object with keys"
    return BridgeTAError(f"is not a table of nuScenes v1.0: record {first + number:,} {what}", where=path, fix=AGAIN)


def _of_other_kind(path: Path, first: int, name: str, kind: Kind, values: Sequence[Any]) -> BridgeTAError:
    """The error of the first of these values that does not fit."""

    def fits(value: Any) -> bool:
        try:
            kind.to_array([value])
        except _UNFIT:
            return False
        return True

    number, value = next((i, v) for i, v in enumerate(values) if not fits(v))
    shown = json.dumps(value)
    what = (
        f"{name} of record {first + number:,} is not {kind.words}: {shown if len(shown) < 80 else shown[:77] + '...'}"
    )
    return BridgeTAError(f"is not a table of nuScenes v1.0: {what}", where=path, fix=AGAIN)
