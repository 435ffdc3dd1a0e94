"""The file of a rig: YAML that is checked key by key, so that no misspelt line goes unnoticed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import LARGEST_TEXT, BoundedComposer, read_limited

FORMAT_HELP = "See docs/rig.md for the format"

# YAML 1.1, which PyYAML reads, takes 1e-5 for a text.
_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
_LARGEST = 1e9
# Rounded components still are a rotation; other numbers in their place are not.
_UNIT = 0.05


class _Fault(Exception):
    """What is wrong with the value of a key."""


def read_entries(path: Path) -> dict[str, dict[str, Any]]:
    """Read a rig file: by camera the fields of `Camera`, with `translation` and `rotation` (w, x, y, z) for its pose.

    Raises BridgeTAError that names the file, the camera and the key at fault, and what was probably meant.
    """
    try:
        content = yaml.load(read_limited(path, LARGEST_TEXT).decode(), _StrictLoader)
    except OSError as error:
        raise BridgeTAError(f"cannot be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        raise BridgeTAError(f"is not text in UTF-8 ({error.reason})", where=path, fix=FORMAT_HELP) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = str(error) if mark is None else f"line {mark.line + 1}: {getattr(error, 'problem', error)}"
        raise BridgeTAError(f"is not YAML ({' '.join(reason.split())})", where=path, fix=FORMAT_HELP) from error
    try:
        return _check_content(content)
    except _Fault as fault:
        raise BridgeTAError(str(fault), where=path, fix=FORMAT_HELP) from None


def format_rig(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the cameras of a rig as YAML, the inverse of `read_entries`."""
    plain = {name: dict(entry) for name, entry in entries.items()}
    return str(yaml.safe_dump({"cameras": plain}, sort_keys=False, default_flow_style=None))


class _StrictLoader(BoundedComposer, yaml.SafeLoader):
    """A loader that refuses a key that is there twice, of which YAML's own takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_content(content: Any) -> dict[str, dict[str, Any]]:
    if isinstance(content, dict) and "camera_matrix" in content and "cameras" not in content:
        raise _Fault(
            "is one camera's file of camera_calibration: a rig has all cameras, with their poses, in 'cameras'"
        )
    if not isinstance(content, dict) or "cameras" not in content:
        raise _Fault("has no mapping 'cameras'")
    others = [key for key in content if key != "cameras"]
    if others:
        raise _Fault(f"has an unknown key {others[0]!r} beside 'cameras'")
    cameras = content["cameras"]
    if not isinstance(cameras, dict):
        raise _Fault(f"has no mapping 'cameras' of names to cameras, but {_describe(cameras)}")
    if not cameras:
        raise _Fault("lists no camera")
    entries = {}
    for name, entry in cameras.items():
        if name is None or isinstance(name, bool):
            raise _Fault(f"a camera's name is {name!r} in YAML: write it in quotes")
        try:
            entries[str(name)] = _check_entry(entry)
        except _Fault as fault:
            raise _Fault(f"camera {name}: {fault}") from None
    return entries


def _check_entry(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _Fault(f"needs keys such as width and intrinsics, not {_describe(entry)}")
    for key in entry:
        if key not in _KEYS:
            raise _Fault(f"unknown key {key!r}{_suggest(str(key))}")
    missing = [key for key in _KEYS if key not in entry and key not in _OPTIONAL]
    if missing:
        raise _Fault(f"has no {missing[0]!r}")
    fields = {}
    for key, value in entry.items():
        try:
            fields[key] = _KEYS[key](value)
        except _Fault as fault:
            raise _Fault(f"{key} {fault}") from None
    return fields


# Names that other tools and people give to these values.
_SYNONYMS = {
    "width": ("image_width", "cols", "w"),
    "height": ("image_height", "rows", "h"),
    "intrinsics": ("k", "camera_matrix", "camera_intrinsic", "cam_k", "matrix", "fx", "fy", "cx", "cy"),
    "translation": ("t", "xyz", "position", "origin", "trans"),
    "rotation": ("q", "r", "quaternion", "orientation", "rpy", "rotation_matrix", "quat"),
    "distortion": ("d", "dist", "dist_coeffs", "distortion_coefficients", "coeffs"),
    "distortion_model": ("model", "camera_model", "lens"),
    "crop_bottom": ("crop", "bottom"),
}


def _suggest(key: str) -> str:
    plain = key.lower().replace("-", "_").replace(" ", "_")
    for name, synonyms in _SYNONYMS.items():
        if plain == name or plain in synonyms:
            return f" (did you mean {name}?)"
    close = difflib.get_close_matches(plain, list(_KEYS), n=1)
    return f" (did you mean {close[0]}?)" if close else f" (the keys are {', '.join(_KEYS)})"


def _describe(value: Any) -> str:
    """Say what a value is, in words that fit after `is` and `not`."""
    match value:
        case None:
            return "null (nothing stands behind the colon)"
        case bool():
            return f"the truth value {str(value).lower()}"
        case str():
            return f"the text {value[:40]!r}"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"a mapping of {', '.join(map(str, list(value)[:4]))}"
        case int() if value.bit_length() > 64:
            return f"a number of {value.bit_length()} bits"
        case _:
            return repr(value)[:40]


def _number(value: Any) -> float:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+,\d+", value.strip()):
        raise _Fault(f"holds {_describe(value)}: decimals take a point, {value.strip().replace(',', '.')}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Fault(f"holds {_describe(value)}, not a number")
    if not -_LARGEST < value < _LARGEST:
        raise _Fault(f"holds {_describe(value)}, which is no measure")
    return float(value)


def _numbers(value: Any, count: int, names: str) -> list[float]:
    """Return a list of `count` numbers; `names` says which."""
    if not isinstance(value, list):
        hint = f": write {names}" if isinstance(value, dict) else f", not {names}"
        raise _Fault(f"is {_describe(value)}{hint}")
    numbers = [_number(v) for v in value]
    if len(numbers) != count:
        hint = " (decimals take a point, not a comma)" if len(numbers) > count and _is_split(value) else ""
        raise _Fault(f"has {len(numbers)} numbers, not {names}{hint}")
    return numbers


def _is_split(values: list[Any]) -> bool:
    """Return whether numbers look as if decimal commas had split them: `1,70` becomes 1 and 70."""
    return all(isinstance(v, int) for v in values)


def _pixels(value: Any) -> int:
    number = _number_alone(value)
    if number != int(number) or number < 1:
        raise _Fault(f"is {value!r}, not a whole number of pixels above 0")
    return int(number)


def _number_alone(value: Any) -> float:
    try:
        return _number(value)
    except _Fault as fault:
        raise _Fault(str(fault).replace("holds", "is", 1)) from None


def _check_intrinsics(value: Any) -> Any:
    form = "three rows [fx, 0, cx], [0, fy, cy], [0, 0, 1]"
    if isinstance(value, list) and not any(isinstance(row, list) for row in value):
        flat = [_number(v) for v in value]
        meaning = {9: ": put them into rows", 4: ", perhaps fx, fy, cx, cy"}.get(len(flat), "")
        raise _Fault(f"are {len(flat)} numbers{meaning}; they are {form}")
    if not isinstance(value, list):
        raise _Fault(f"are {_describe(value)}; they are {form}")
    if len(value) != 3:
        raise _Fault(f"have {len(value)} rows; they are {form}")
    rows = [_numbers(row, 3, f"[., ., .] in row {i + 1} of three") for i, row in enumerate(value)]
    if not (rows[0][0] > 0 and rows[1][1] > 0):
        raise _Fault(f"are {rows}, without a positive focal length; they are {form}")
    if rows[1][0] or rows[2] != [0, 0, 1]:
        raise _Fault(f"are {rows}; they are {form}")
    return np.array(rows)


def _check_rotation(value: Any) -> list[float]:
    form = "a quaternion [w, x, y, z]"
    if isinstance(value, list):
        count = sum(len(v) if isinstance(v, list) else 1 for v in value)
        if any(isinstance(v, list) for v in value) or count in (9, 16):
            raise _Fault(f"looks like a matrix; it is {form}")
        if count == 3:
            raise _Fault(f"has 3 numbers, perhaps roll, pitch and yaw; it is {form}")
    q = _numbers(value, 4, form)
    if abs(float(np.square(q).sum()) - 1) > _UNIT:
        raise _Fault(f"{q} is not a rotation: a quaternion w, x, y, z has length 1, this one {np.linalg.norm(q):.3g}")
    return q


def _check_distortion(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise _Fault(f"is {_describe(value)}; it is a list of coefficients, [] for rectified images")
    if value and all(isinstance(row, list) for row in value):
        raise _Fault("is a list of lists; write its coefficients in one")
    return tuple(_number(v) for v in value)


# Other names of the same models, with the same order of coefficients.
_MODELS = {
    "equidistant": ("fisheye", "kannala_brandt", "kannala_brandt4", "kb4", "opencv_fisheye"),
    "plumb_bob": ("radtan", "brown_conrady", "opencv", "pinhole", "brown", "none"),
    "rational_polynomial": ("rational", "full_opencv"),
}


def _check_model(value: Any) -> str:
    if not isinstance(value, str):
        raise _Fault(f"is {_describe(value)}, not a name")
    plain = value.strip().lower().replace("-", "_").replace(" ", "_")
    for model, synonyms in _MODELS.items():
        if value != model and (plain == model or plain in synonyms):
            raise _Fault(f"is {value!r} (did you mean {model}?)")
    return value


_KEYS: dict[str, Callable[[Any], Any]] = {
    "width": _pixels,
    "height": _pixels,
    "intrinsics": _check_intrinsics,
    "translation": lambda value: _numbers(value, 3, "[x, y, z] in metres"),
    "rotation": _check_rotation,
    "distortion": _check_distortion,
    "distortion_model": _check_model,
    "crop_bottom": _pixels,
}
_OPTIONAL = ("distortion", "distortion_model", "crop_bottom")
