"""Messages of the ROS installation."""

from __future__ import annotations

from array import array
from functools import cache
from typing import Any

import numpy as np
from rosidl_runtime_py.utilities import get_message


@cache
def _load_class(msgtype: str) -> tuple[Any, frozenset[str]]:
    """Return a message class and the names of its fields that are sequences."""
    cls = get_message(msgtype)
    kinds = cls.get_fields_and_field_types().items()
    return cls, frozenset(name for name, kind in kinds if kind.startswith("sequence<"))


class RosFactory:
    """Makes messages of rclpy's classes; a `MessageFactory`."""

    def make(self, msgtype: str, **fields: Any) -> Any:
        """Make a message. Arrays become array.array, since rclpy checks other sequences item by item."""
        cls, sequences = _load_class(msgtype)
        for name in sequences & fields.keys():
            if isinstance(value := fields[name], np.ndarray):
                fields[name] = array(value.dtype.char, value.tobytes())
        return cls(**fields)
