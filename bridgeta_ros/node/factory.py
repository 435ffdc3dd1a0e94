"""Messages of the ROS installation; with the node, all that imports message packages."""

from __future__ import annotations

from array import array
from functools import cache
from typing import Any

import numpy as np
from rosidl_runtime_py.utilities import get_message


@cache
def _class(msgtype: str) -> tuple[Any, frozenset[str]]:
    """A message class and those of its fields that are sequences of numbers."""
    cls = get_message(msgtype)
    kinds = cls.get_fields_and_field_types().items()
    return cls, frozenset(name for name, kind in kinds if kind.startswith("sequence<"))


class RosFactory:
    """The `MessageFactory` of rclpy's classes."""

    def make(self, msgtype: str, **fields: Any) -> Any:
        """See `MessageFactory`. Arrays become array.array: rclpy checks other sequences item by item."""
        cls, sequences = _class(msgtype)
        for name in sequences & fields.keys():
            if isinstance(value := fields[name], np.ndarray):
                fields[name] = array(value.dtype.char, value.tobytes())
        return cls(**fields)
