"""Read a nuScenes table, a JSON list of records, into columns; as a stream, so that gigabytes need little memory."""

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
_LONGEST_STRING = 1000  # bytes; paths have about 100, and a column of fixed width must not be blown up by one value
_UNIT = 0.01  # how far the length of a quaternion may be from 1, for those that were rounded
_LIST_START = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")


class Kind(NamedTuple):
    """A kind of field: its values in words, and how they become an array, which raises when a value does not fit."""

    words: str
    to_array: Callable[[Sequence[Any]], NDArray[Any]]


def _encode(values: Sequence[Any]) -> NDArray[np.bytes_]:
    strings = np.array([value.encode() for value in values])
    if strings.itemsize > _LONGEST_STRING:
        raise ValueError
    return strings


def _of_type(dtype: type[np.generic]) -> Callable[[Sequence[Any]], NDArray[Any]]:
    def to_array(values: Sequence[Any]) -> NDArray[Any]:
        result = np.array(values)
        if result.dtype != dtype or result.ndim != 1:
            raise ValueError
        return result

    return to_array


STRING = Kind(f"a text of at most {_LONGEST_STRING} bytes", _encode)
INTEGER = Kind("a whole number", _of_type(np.int64))
FLAG = Kind("true or false", _of_type(np.bool_))


def _limited(kind: Kind, words: str, fits: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> Kind:
    """Limit a kind of numbers to those values `[n, ...]` of which `fits` is true, `[n]`."""

    def to_array(values: Sequence[Any]) -> NDArray[np.float64]:
        result = kind.to_array(values)
        if not fits(result).all():
            raise ValueError
        return result

    return Kind(words, to_array)


def numbers(*shape: int, or_empty: bool = False) -> Kind:
    """Make the kind of finite numbers of a shape, as float64; with `or_empty` an empty list becomes NaNs."""
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


def _is_pinhole(matrices: NDArray[np.float64]) -> NDArray[np.bool_]:
    focal, last_row = matrices[:, [0, 1], [0, 1]], matrices[:, 2]
    fits = (focal > 0).all(axis=1) & (matrices[:, 1, 0] == 0) & (last_row == (0, 0, 1)).all(axis=1)
    return fits | np.isnan(focal[:, 0])


ROTATION = _limited(
    numbers(4), "a unit quaternion (w, x, y, z)", lambda q: np.abs(np.linalg.norm(q, axis=1) - 1) < _UNIT
)
INTRINSICS = _limited(
    numbers(3, 3, or_empty=True),
    "a camera matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] of positive focal lengths in pixels, or an empty list",
    _is_pinhole,
)


def within(limit: float, words: str) -> Kind:
    """Make the kind of three numbers of at most `limit` each."""
    words = f"a list of 3 finite numbers, {words} (at most {limit:,.0f})"
    return _limited(numbers(3), words, lambda t: (np.abs(t) <= limit).all(axis=1))


def read_table(path: Path, fields: Mapping[str, Kind], report: Callable[[int], object] = lambda _: None) -> Columns:
    """Read `fields` (two or more) of a table's n records as arrays `[n, ...]`; strings are UTF-8 bytes of fixed width.

    `report` receives how many bytes have been read so far. Raises BridgeTAError that names the file and the place for a
    table that cannot be read, is not a JSON list of objects, is truncated or empty, or whose record lacks a field or
    has a value of another kind. Records are numbered from 0.
    """
    get = itemgetter(*fields)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in fields}
    first = 0
    for records in _batches(path, report):
        try:
            columns = list(zip(*map(get, records), strict=True))
        except (KeyError, TypeError):
            raise _missing_field_error(path, first, records, fields) from None
        for (name, kind), values in zip(fields.items(), columns, strict=True):
            try:
                parts[name].append(kind.to_array(values))
            except _UNFIT:
                tokens = columns[list(fields).index("token")] if "token" in fields else None
                raise _wrong_kind_error(path, first, name, kind, values, tokens) from None
        first += len(records)
    if not first:
        raise BridgeTAError("has no records", where=path, fix=AGAIN)
    # Pop, so that at most one column is in memory twice.
    return {name: np.concatenate(parts.pop(name)) for name in fields}


def _batches(path: Path, report: Callable[[int], object]) -> Iterator[list[Any]]:
    """Yield the records of a table in batches."""
    decode = json.JSONDecoder().raw_decode
    separator, count = _LIST_START, 0
    buffer, position = "", 0
    try:
        with open(path, "rb") as file:
            characters = io.TextIOWrapper(file, encoding="utf-8", newline="")
            while chunk := characters.read(_CHUNK):
                buffer, position = buffer[position:] + chunk, 0
                records = []
                while match := separator.match(buffer, position):
                    try:
                        record, position = decode(buffer, match.end())
                    except ValueError:  # a record that continues in the next chunk, or not a record
                        break
                    records.append(record)
                    separator = _COMMA
                place = f"record {count + len(records):,}, about byte {file.tell() - len(buffer) + position:,}"
                if not records and len(buffer) > _LONGEST_RECORD:
                    break
                if records:
                    yield records
                    count += len(records)
                report(file.tell())
    except OSError as error:
        raise BridgeTAError(f"cannot be read ({error.strerror})", where=path, fix=AGAIN) from error
    except UnicodeDecodeError as error:
        raise BridgeTAError(f"is not UTF-8 text after record {count:,}", where=path, fix=AGAIN) from error
    except RecursionError as error:
        raise BridgeTAError(f"is not a table: record {count:,} is nested too deeply", where=path, fix=AGAIN) from error
    rest = buffer[position:].strip(" \t\n\r")
    if rest == "]" or (not count and re.fullmatch(r"\[\s*\]", rest)):
        return
    if not rest and not count:
        what = "is empty"
    elif not count and not rest.startswith("["):
        what = f"is not a list of records; it begins with {rest[:20]!r}"
    elif chunk or rest.startswith("]") or rest.endswith("]"):
        what = f"is not JSON, perhaps damaged or truncated, at {place}"
    else:
        what = f"is not JSON, it is truncated: it ends in {place}"
    raise BridgeTAError(what, where=path, fix=AGAIN)


_UNFIT = (ValueError, TypeError, AttributeError, OverflowError)


def _missing_field_error(path: Path, first: int, records: Sequence[Any], fields: Mapping[str, Kind]) -> BridgeTAError:
    """Make the error for the first of these records that is not an object or lacks a field."""
    number, record = next((i, r) for i, r in enumerate(records) if not isinstance(r, dict) or fields.keys() - r.keys())
    if isinstance(record, dict):
        what = f"has no {', '.join(name for name in fields if name not in record)}"
    else:
        what = "is no object with keys"
    return BridgeTAError(f"is not a table of nuScenes v1.0: record {first + number:,} {what}", where=path, fix=AGAIN)


def _wrong_kind_error(
    path: Path, first: int, name: str, kind: Kind, values: Sequence[Any], tokens: Sequence[Any] | None
) -> BridgeTAError:
    """Make the error for the first of these values that does not fit."""

    def fits(value: Any) -> bool:
        try:
            kind.to_array([value])
        except _UNFIT:
            return False
        return True

    number, value = next((i, v) for i, v in enumerate(values) if not fits(v))
    shown = json.dumps(value)
    record = f"record {first + number:,}" + (f" (token {str(tokens[number])[:40]})" if tokens else "")
    what = f"{name} of {record} is not {kind.words}: {shown if len(shown) < 80 else shown[:77] + '...'}"
    return BridgeTAError(f"is not a table of nuScenes v1.0: {what}", where=path, fix=AGAIN)
