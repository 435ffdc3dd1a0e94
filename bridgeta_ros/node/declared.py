"""The parameters as the node declares them to ROS, and what happens when somebody sets one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.node.parameters import AT_CONFIGURE, AT_START, NodeParameters, Parameter, list_parameters


class DeclaredParameters:
    """Declares the table of parameters on a node and keeps its `values` up to date.

    Raises BridgeTAError, or one of rclpy's parameter exceptions, for a value from outside that is wrong.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool]) -> None:
        self._is_configured = is_configured
        self._table = {p.name: p for p in list_parameters()}
        values = {
            name: _fill_empty(p, node.declare_parameter(name, p.default, _describe(p)).value)
            for name, p in self._table.items()
        }
        # ROS ignores these silently. A file for several nodes may hold them rightly, so they are no error.
        unknown = [name for name in node._parameter_overrides if not node.has_parameter(name)]
        if unknown:
            node.get_logger().warning(f"no such parameter, so it has no effect: {', '.join(sorted(unknown))}")
        self.values = NodeParameters.from_flat(values)
        node.add_on_set_parameters_callback(self._change)

    def _change(self, changes: list[RosParameter]) -> SetParametersResult:
        """Take new values, or refuse them with the reason."""
        values = self.values.to_flat()
        new = {c.name: _fill_empty(self._table[c.name], c.value) for c in changes if c.name in self._table}
        changed = {name: value for name, value in new.items() if value != values[name]}
        fixed = [name for name in changed if self._table[name].effect == AT_START]
        if fixed:
            return _refuse(f"{', '.join(fixed)} can be set only when the node starts")
        fixed = [name for name in changed if self._table[name].effect == AT_CONFIGURE]
        if fixed and self._is_configured():
            return _refuse(f"{', '.join(fixed)} can change only before the node is configured: clean it up first")
        try:
            self.values = NodeParameters.from_flat({**values, **changed})
        except BridgeTAError as error:
            return _refuse(str(error))
        return SetParametersResult(successful=True)


def _refuse(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)


def _fill_empty(parameter: Parameter, value: Any) -> Any:
    """Return a parameter's value; ROS has no type for an empty list, such as `cameras:=[]`, and gives none."""
    return parameter.default if value is None else value


def _describe(parameter: Parameter) -> ParameterDescriptor:
    description = f"{parameter.help}. Changes take effect at: {parameter.effect}"
    descriptor = ParameterDescriptor(description=description, additional_constraints=parameter.constraints)
    if parameter.low is not None and parameter.high is not None:
        if isinstance(parameter.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))]
        else:
            bounds = FloatingPointRange(from_value=float(parameter.low), to_value=float(parameter.high))
            descriptor.floating_point_range = [bounds]
    return descriptor
