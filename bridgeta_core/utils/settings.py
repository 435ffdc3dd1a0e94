"""Typed settings: dataclass fields with a documentation and a range, filled from mappings and `key=value`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bridgeta_core.utils.errors import BridgeTAError

T = TypeVar("T")


def setting(default: Any, help: str, *, ge: float | None = None, le: float | None = None, among: Sequence = ()) -> Any:
    """A dataclass field with its documentation and its range: `ge <= value <= le`, or one of `among`.

    A range on a list or a mapping holds for each of its elements.
    """
    metadata = {"help": help, "ge": ge, "le": le, "among": tuple(among)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def _open_for_writing(node: DictConfig) -> None:
    """OmegaConf locks frozen dataclasses (BevGrid) against merging; the frozen object is made only at the end."""
    OmegaConf.set_readonly(node, False)
    for value in node.values():
        if isinstance(value, DictConfig):
            _open_for_writing(value)


def _check_ranges(value: Any, path: str, where: object) -> None:
    for f in dataclasses.fields(value):
        item, name, rule = getattr(value, f.name), f"{path}{f.name}", f.metadata
        if dataclasses.is_dataclass(item):
            _check_ranges(item, f"{name}.", where)
            continue
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


def from_mapping(cls: type[T], content: Mapping[str, Any], overrides: Sequence[str] = (), where: object = None) -> T:
    """Build a settings dataclass from nested mappings and `a.b=value` overrides.

    Raises BridgeTAError (exit code 2) that names the key for an unknown key, a wrong type or a value out of range.
    """
    try:
        node = cast(DictConfig, OmegaConf.structured(cls))
        _open_for_writing(node)
        node = cast(DictConfig, OmegaConf.merge(node, OmegaConf.create(dict(content))))
        for override in overrides:
            if "=" not in override:
                raise BridgeTAError(f"{override!r} is not of the form key=value", where="command line", exit_code=2)
            where = "command line"
            node = cast(DictConfig, OmegaConf.merge(node, OmegaConf.from_dotlist([override])))
        result = cast(T, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None)
        reason = str(error.msg if hasattr(error, "msg") else error).splitlines()[0]
        raise BridgeTAError(f"setting {key}: {reason}", where=where, exit_code=2) from error
    _check_ranges(result, "", where)
    return result


def to_mapping(settings: Any) -> dict[str, Any]:
    """Nested plain dicts and lists of a settings dataclass; `from_mapping` is its inverse."""
    return dataclasses.asdict(settings)
