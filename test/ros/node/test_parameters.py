"""The table of parameters is whole, checks what it is given, and names what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.node.parameters import (
    AT_CALIBRATE,
    AT_CONFIGURE,
    AT_ONCE,
    AT_RELOAD,
    AT_START,
    NodeParameters,
    Parameter,
    list_parameters,
)

TABLE = {p.name: p for p in list_parameters()}
NUMBERS = [p for p in TABLE.values() if type(p.default) in (int, float)]
CHOICES = [p for p in TABLE.values() if p.among]
ROS_TYPES = (bool, int, float, str, list)


def values_of(parameter: Parameter) -> st.SearchStrategy[Any]:
    """Draw values that the table allows."""
    letters = st.text("abcxyz019_/.-", max_size=12)
    if parameter.among:
        return st.sampled_from(parameter.among)
    if isinstance(parameter.default, bool):
        return st.booleans()
    if isinstance(parameter.default, int):
        return st.integers(int(parameter.low or 0), int(parameter.high or 0))
    if isinstance(parameter.default, float):
        return st.floats(parameter.low, parameter.high)
    return st.lists(letters, max_size=4) if isinstance(parameter.default, list) else letters


@pytest.mark.parametrize("parameter", TABLE.values(), ids=TABLE)
def test_each_parameter_has_help_an_effect_and_a_ros_type(parameter):
    assert parameter.help
    assert parameter.effect in (AT_ONCE, AT_RELOAD, AT_CALIBRATE, AT_CONFIGURE, AT_START)
    assert type(parameter.default) in ROS_TYPES


@pytest.mark.parametrize("parameter", NUMBERS, ids=lambda p: p.name)
def test_each_number_has_a_range_that_holds_its_default(parameter):
    assert parameter.low <= parameter.default <= parameter.high
    assert parameter.constraints == f"{parameter.low:g} to {parameter.high:g}"


@pytest.mark.parametrize("parameter", CHOICES, ids=lambda p: p.name)
def test_each_choice_contains_its_default_and_lists_its_values(parameter):
    assert parameter.default in parameter.among
    assert parameter.constraints == ", ".join(parameter.among)


def test_what_may_be_anything_has_no_constraint():
    free = {name for name, p in TABLE.items() if not p.constraints}
    assert free == {
        "autostart",
        "weights",
        "device",
        "cameras",
        "base_frame",
        "calibration_file",
        "lazy",
        "local_map.enabled",
        "local_map.frame",
    }


def test_flat_names_and_defaults_are_those_of_the_table():
    assert NodeParameters().to_flat() == {name: p.default for name, p in TABLE.items()}
    assert list(NodeParameters().to_flat()) == list(TABLE)


@given(st.fixed_dictionaries({}, optional={name: values_of(p) for name, p in TABLE.items()}))
def test_values_survive_a_round_trip_and_the_others_are_defaults(values):
    settings = NodeParameters.from_flat(values)
    assert settings.to_flat() == {**NodeParameters().to_flat(), **values}
    assert NodeParameters.from_flat(settings.to_flat()) == settings


def test_groups_are_reached_by_their_dotted_names():
    settings = NodeParameters.from_flat({"local_map.size": 80.0, "diagnostics.late_after": 0.25, "slop": 0.1})
    assert (settings.local_map.size, settings.diagnostics.late_after, settings.slop) == (80.0, 0.25, 0.1)


def test_settings_do_not_share_their_lists_and_groups():
    one, two = NodeParameters(), NodeParameters()
    one.cameras.append("x")
    one.local_map.size = 20.0
    assert two == NodeParameters()


@pytest.mark.parametrize("name", ["no_such", "local_map.no_such", "no_such.size", "weights.size", "a.b.c"])
def test_an_unknown_name_is_named(name):
    with pytest.raises(BridgeTAError, match=name.split(".")[0]) as error:
        NodeParameters.from_flat({name: 1})
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slop", "fast"),
        ("slop", None),
        ("slop", True),
        ("depth", 2.5),
        ("depth", "many"),
        ("lazy", "sometimes"),
        ("cameras", "cam_front"),
        ("weights", None),
        ("local_map.enabled", 0.5),
        ("diagnostics.period", "often"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(name, value):
    with pytest.raises(BridgeTAError, match=name) as error:
        NodeParameters.from_flat({name: value})
    assert error.value.exit_code == 2


@pytest.mark.parametrize("parameter", NUMBERS, ids=lambda p: p.name)
def test_a_number_out_of_range_is_refused_with_name_and_range(parameter):
    for value in (parameter.low - 1, parameter.high + 1, float("nan")):
        if isinstance(parameter.default, int) and value != value:
            continue
        with pytest.raises(BridgeTAError, match=parameter.name) as error:
            NodeParameters.from_flat({parameter.name: type(parameter.default)(value)})
        assert f"{parameter.low:g}" in str(error.value)
        assert f"{parameter.high:g}" in str(error.value)


@pytest.mark.parametrize("parameter", CHOICES, ids=lambda p: p.name)
def test_another_choice_is_refused_by_name_with_those_there_are(parameter):
    with pytest.raises(BridgeTAError, match=parameter.name) as error:
        NodeParameters.from_flat({parameter.name: "neither"})
    assert all(choice in str(error.value) for choice in parameter.among)


@pytest.mark.parametrize("cameras", [[], [""]])
def test_camera_names_default_to_those_of_the_weights_in_lower_case(cameras):
    assert NodeParameters(cameras=cameras).choose_cameras(("CAM_FRONT", "Left")) == ("cam_front", "left")


def test_given_camera_names_are_used_as_they_are():
    assert NodeParameters(cameras=["Roof", "", "back"]).choose_cameras(("CAM_FRONT",)) == ("Roof", "back")


@pytest.mark.parametrize("cameras", [["front", "front"], ["front", "left side"], ["/front"], ["1st"], ["außen"]])
def test_camera_names_that_cannot_name_topics_are_refused(cameras):
    with pytest.raises(BridgeTAError, match="a name of its own"):
        NodeParameters(cameras=cameras).choose_cameras(())


def test_more_cameras_than_there_are_cannot_be_asked_for():
    with pytest.raises(BridgeTAError, match="min_cameras: is 3, the cameras are front, back"):
        NodeParameters(cameras=["front", "back"], min_cameras=3).choose_cameras(())
