"""Typed settings: dataclass fields with help and a range, filled from mappings and `key=value`."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar, cast, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from bridgeta_core.utils.errors import BridgeTAError, read_message

T = TypeVar("T")

_announced: set[str] = set()  # former keys whose new name was printed


def setting(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    among: Sequence = (),
    added: bool = False,
) -> Any:
    """Make a dataclass field with its help and its range: `ge <= value <= le`, or one of `among`.

    The range of a list or a mapping holds for each of its elements. A setting that was `added` to a released class is
    left out of mappings while it has its default, so that files and hashes of older settings stay the same.
    """
    metadata = {"help": help, "ge": ge, "le": le, "among": tuple(among), "added": added}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def texts(default: str | None, help: str, *, added: bool = False) -> Any:
    """Make a dataclass field, of type Any, for a text or a list of at least one; read it with `list_texts`.

    Where the default is None, None is allowed and stands for no text. `added` is as in `setting`.
    """
    return field(default=default, metadata={"help": help, "texts": True, "added": added})


def list_texts(value: str | list[str] | None) -> list[str]:
    """Return the texts of a field that `texts` made, as a list."""
    return [value] if isinstance(value, str) else value or []


def _unlock(node: DictConfig) -> None:
    """Unlock nodes of frozen dataclasses (BevGrid), which OmegaConf protects against merging."""
    OmegaConf.set_readonly(node, False)
    for value in node.values():
        if isinstance(value, DictConfig):
            _unlock(value)


def _check_ranges(value: Any, path: str, where: object) -> None:
    for f in dataclasses.fields(value):
        item, name, rule = getattr(value, f.name), f"{path}{f.name}", f.metadata
        if dataclasses.is_dataclass(item):
            _check_ranges(item, f"{name}.", where)
            continue
        if rule.get("texts") and not _is_texts(item) and (item is not None or f.default is not None):
            raise BridgeTAError(
                f"{name} = {item!r} is neither a text nor a list of texts",
                where=where,
                fix=f"Give {name}=A, or {name}=[A,B] for several",
                exit_code=2,
            )
        elements = item if isinstance(item, list) else item.values() if isinstance(item, dict) else [item]
        for element in elements:
            if element is None:
                continue
            low, high, among = rule.get("ge"), rule.get("le"), rule.get("among")
            if among and element not in among:
                raise BridgeTAError(
                    f"{name} = {element!r} is not one of {', '.join(map(str, among))}", where=where, exit_code=2
                )
            if (low is not None and not element >= low) or (high is not None and not element <= high):
                bounds = (
                    f"at least {low}" if high is None else f"between {low if low is not None else '-inf'} and {high}"
                )
                raise BridgeTAError(f"{name} = {element} must be {bounds}", where=where, exit_code=2)
            if isinstance(element, float) and not math.isfinite(element):
                raise BridgeTAError(f"{name} = {element} must be a finite number", where=where, exit_code=2)


def _is_texts(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and len(value) > 0 and all(isinstance(text, str) for text in value)
    )


def rename_old_keys(
    cls: type, content: Mapping[str, Any], where: object = None, *, announce: bool = True
) -> dict[str, Any]:
    """Copy nested plain settings, with the keys of older files under their present names.

    A settings class names its old keys in the class attribute `RENAMED`: old name to new name, relative to the class.
    With `announce` each new name is printed to stderr, once. Raises BridgeTAError (exit code 2) for a setting that is
    there under both names.
    """
    result = copy.deepcopy(dict(content))
    for old, new in _renamed_keys(cls).items():
        *parents, key = old.split(".")
        holder = _descend(result, parents)
        if holder is None or key not in holder:
            continue
        *parents, new_key = new.split(".")
        target = _descend(result, parents, create=True)
        if target is None:
            continue
        if new_key in target:
            raise BridgeTAError(f"{old} is the former name of {new}: give only {new}", where=where, exit_code=2)
        target[new_key] = holder.pop(key)
        if announce:
            _announce(old, new)
    return result


def _renamed_keys(cls: type) -> dict[str, str]:
    """Map the former keys of a settings class and of those nested in it to the present ones, both dotted."""
    renamed: dict[str, str] = dict(getattr(cls, "RENAMED", {}))
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            renamed |= {f"{name}.{old}": f"{name}.{new}" for old, new in _renamed_keys(kind).items()}
    return renamed


def _descend(content: dict[str, Any], keys: Sequence[str], create: bool = False) -> dict[str, Any] | None:
    node: Any = content
    for key in keys:
        if create:
            node.setdefault(key, {})
        node = node.get(key)
        if not isinstance(node, dict):
            return None
    return cast("dict[str, Any]", node)


def _announce(old: str, new: str) -> None:
    if old not in _announced:
        _announced.add(old)
        print(f"bridgeta: the setting {old} is now called {new}", file=sys.stderr)


def from_mapping(cls: type[T], content: Mapping[str, Any], overrides: Sequence[str] = (), where: object = None) -> T:
    """Build a settings dataclass from nested mappings and `a.b=value` overrides.

    Raises BridgeTAError (exit code 2) that names the key for an unknown key, a wrong type, a value out of range or one
    that is not YAML.
    """
    renamed, name = _renamed_keys(cls), ""
    try:
        node = OmegaConf.structured(cls)
        _unlock(node)
        node = OmegaConf.merge(node, OmegaConf.create(rename_old_keys(cls, content, where)))
        for override in overrides:
            if "=" not in override:
                raise BridgeTAError(f"{override!r} is not of the form key=value", where="command line", exit_code=2)
            where = "command line"
            name, _, value = override.partition("=")
            if name in renamed:
                _announce(name, renamed[name])
            node = OmegaConf.merge(node, OmegaConf.from_dotlist([f"{renamed.get(name, name)}={value}"]))
        result = cast(T, OmegaConf.to_object(node))
    # OmegaConf lets through what PyYAML raises for a value that is none, and what Python does when kinds do not fit.
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError, AttributeError, RecursionError) as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or name
        reason, fix = _explain(error)
        raise BridgeTAError(f"setting {key}: {reason}", where=where, fix=fix, exit_code=2) from error
    _check_ranges(result, "", where)
    return result


def _explain(error: Exception) -> tuple[str, str | None]:
    """Say in one line why a setting cannot be taken, and what may help."""
    if isinstance(error, YAMLError):
        problem = error.problem if isinstance(error, MarkedYAMLError) else None
        return f"is not YAML ({problem or read_message(error)})", "Put a text between quotes: key='\"...\"'"
    if isinstance(error, RecursionError):
        return "is nested too deeply", None
    first = str(getattr(error, "msg", None) or error or "").splitlines()[:1]
    if isinstance(error, TypeError) or first in ([], ["None"]):
        return "holds settings of another kind", "Give a list or a mapping as a whole, such as data.cameras=[a,b]"
    return first[0], None


def to_mapping(settings: Any) -> dict[str, Any]:
    """Convert a settings dataclass to nested plain dicts and lists, the inverse of `from_mapping`."""
    content = dataclasses.asdict(settings)
    _drop_added(settings, content)
    return content


def write_commented(settings: Any) -> str:
    """Write a settings dataclass as YAML, each value with its meaning and its range in a comment."""
    return "\n".join(_write_lines(settings, "", "")) + "\n"


def _write_lines(settings: Any, indent: str, meaning: str) -> Iterator[str]:
    for f in dataclasses.fields(settings):
        value, rule = getattr(settings, f.name), f.metadata
        help_text = rule.get("help", "" if dataclasses.is_dataclass(value) else meaning)
        if dataclasses.is_dataclass(value):
            yield f"{indent}{f.name}:" + (f"  # {help_text}" if help_text else "")
            yield from _write_lines(value, f"{indent}  ", "")
            continue
        line = f"{indent}{f.name}: {_write_value(value)}"
        comment = "; ".join(text for text in (help_text, _describe_range(rule)) if text)
        yield f"{line:39}  # {comment}" if comment else line


def _write_value(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _describe_range(rule: Mapping[str, Any]) -> str:
    """Describe the range of a setting in words, "" where it has none."""
    low, high = rule.get("ge"), rule.get("le")
    if rule.get("among"):
        return f"one of {', '.join(map(str, rule['among']))}"
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


def list_differences(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """List the settings, dotted, in which two settings dataclasses of one class differ, with both values."""
    return _list_differences(dataclasses.asdict(one), dataclasses.asdict(other), "")


def _list_differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key, value in one.items():
        name, there = f"{prefix}{key}", other.get(key)
        if isinstance(value, dict) and isinstance(there, dict) and value.keys() == there.keys():
            found += _list_differences(value, there, f"{name}.")
        elif value != there:
            found.append((name, value, there))
    return found


def _drop_added(settings: Any, content: dict[str, Any]) -> None:
    """Remove from a mapping of settings those that were added later and have their defaults."""
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        if f.metadata.get("added") and value == _make_default(f):
            del content[f.name]
        elif dataclasses.is_dataclass(value):
            _drop_added(value, content[f.name])


def _make_default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
