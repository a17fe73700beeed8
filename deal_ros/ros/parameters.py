# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Declare a node's parameters from its table, refuse bad values with the reason, tell the node what changed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from deal_ros.ros.tables import LIVE, START, Parameter, ParameterError, check_value, plain_value

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
    list: ParameterType.PARAMETER_STRING_ARRAY,
}


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Return the ROS description of one row: ``ros2 param describe`` and rqt show it."""
    result = ParameterDescriptor(
        name=parameter.name,
        type=_TYPES[parameter.kind],
        description=parameter.description,
        additional_constraints=parameter.constraints,
        read_only=parameter.changes == START,
    )
    if parameter.range is not None and parameter.kind is int:
        low, high = parameter.range
        result.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    elif parameter.range is not None:
        low, high = parameter.range
        result.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return result


class NodeParameters:
    """The parameters of one node: ``parameters["name"]`` is the checked, current value.

    Args:
        node: the node to declare on.
        table: its rows.
        configured: says whether the node is configured; then rows that are read at configure are refused.
        changed: called with the changed values (already in force here) after every accepted set.

    Raises:
        ParameterError: if a value given at start has the wrong type, lies outside its range or is not a choice.
    """

    def __init__(
        self,
        node: Node,
        table: Sequence[Parameter],
        configured: Callable[[], bool] = lambda: False,
        changed: Callable[[dict[str, Any]], None] = lambda values: None,
    ) -> None:
        self._node = node
        self._table = {row.name: row for row in table}
        self._configured = configured
        self._changed = changed
        self._values: dict[str, Any] = {}
        for row in table:
            self._values[row.name] = self._declare(row)
        self._warn_of_unknown()
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        """Return the value in force."""
        return self._values[name]

    def _declare(self, row: Parameter) -> Any:
        default = list(row.default) if row.kind is list else row.default
        if row.kind is list and not default:
            default = [""]  # an empty list has no type in rclpy; plain_value() drops the empty name again
        try:
            value = self._node.declare_parameter(row.name, default, descriptor(row)).value
        except (ParameterException, ValueError, TypeError) as error:
            raise ParameterError(f"parameter {row.name}: {row.constraints}; {error}") from error
        return check_value(row, plain_value(row, value))

    def _warn_of_unknown(self) -> None:
        # rcl drops a misspelt parameter of a YAML file without a word.
        overrides = getattr(self._node, "_parameter_overrides", {})
        for name in overrides:
            if not self._node.has_parameter(name) and not name.startswith("qos_overrides."):
                near = difflib.get_close_matches(name, self._table, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                self._node.get_logger().warning(f"parameter '{name}' is not known to this node and was ignored{hint}")

    def _on_set(self, parameters: list[RosParameter]) -> SetParametersResult:
        accepted: dict[str, Any] = {}
        for parameter in parameters:
            row = self._table.get(parameter.name)
            if row is None:
                continue  # use_sim_time and the like: not ours to judge
            try:
                value = check_value(row, plain_value(row, parameter.value))
            except ParameterError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if row.changes == START:
                return SetParametersResult(
                    successful=False, reason=f"parameter {row.name} is fixed at start; restart the node with it"
                )
            if row.changes != LIVE and self._configured():
                return SetParametersResult(
                    successful=False,
                    reason=f"parameter {row.name} is read at configure; deactivate and clean up first, then set it",
                )
            accepted[row.name] = value
        try:
            previous = {name: self._values[name] for name in accepted}
            self._values.update(accepted)
            if accepted:
                self._changed(accepted)
        except ValueError as error:
            self._values.update(previous)
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)
