"""What ships can be seen: settings with their meaning, weights with their scores, the version, names to complete."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from bridgeta_core.cli import common
from bridgeta_core.cli.commands import app
from bridgeta_core.config import experiment as configs
from bridgeta_core.deploy.weights import SHIPPED
from bridgeta_ros.commands import app as whole

CONFIGURATIONS = sorted(path.stem for path in configs.CONFIG_FOLDER.glob("*.yaml"))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_printed_is_the_same_configuration(name, tmp_path):
    page = tmp_path / "mine.yaml"
    page.write_text(run("config", name, "train.epochs=7", "data.train_root=[a,b]"))
    expected = configs.load(configs.Experiment, name, ["train.epochs=7", "data.train_root=[a,b]"])
    assert configs.load(configs.Experiment, page) == expected


def test_every_setting_has_its_meaning():
    grid = ("x_min:", "x_max:", "y_min:", "y_max:", "resolution:")  # the block has it
    lines = run("config", "tiny").splitlines()
    values = [line for line in lines if not line.split("  #")[0].rstrip().endswith(":")]
    assert len(values) > 100
    assert [line for line in values if "  # " not in line and not line.strip().startswith(grid)] == []


@pytest.mark.parametrize(
    "line",
    [
        "epochs: 6  # passes over the training samples; at least 1",
        "warmup: 0.2  # share of the steps before the peak; 0 to 1",
        "precision: 32-true  # Lightning precision; one of 32-true, 16-mixed, bf16-mixed",
    ],
)
def test_a_setting_shows_its_range(line):
    lines = [" ".join(shown.split()) for shown in run("config", "tiny").splitlines()]
    assert " ".join(line.split()) in lines


def test_a_difference_is_listed_with_both_values():
    page = run("config", "tiny", "train.epochs=7", "--diff", "tiny")
    (row,) = [line for line in page.splitlines() if "train." in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["train.epochs", "7", "6"]
    assert run("config", "tiny", "--diff", "tiny").strip() == "tiny and tiny have the same settings"


def test_names_of_differing_settings_are_whole():
    assert "model.backbone.pretrained" in run("config", "tiny", "--diff", "nuscenes_swin_t")


def test_all_weights_that_ship_are_listed():
    page = run("weights")
    assert all(f"│ {name} " in page for name in SHIPPED)
    assert "teacher of" in page


def test_the_version_is_that_of_the_package():
    assert run("--version").strip() == f"bridgeta {importlib.metadata.version('bridgeta_ros')}"


def list_commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """List the commands by their words; those of older versions of Typer are click's, those of newer ones its own."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from list_commands(below, (*path, name))
    else:
        yield path, command


COMMANDS = dict(list_commands(typer.main.get_command(whole)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_ends_with_an_example_that_can_be_typed(path):
    """The words of the example are read as when it is typed, but nothing is run."""
    found = re.fullmatch(r"Example: `bridgeta (.*)`", COMMANDS[path].epilog or "")
    assert found is not None
    words = shlex.split(found[1])
    assert tuple(words[: len(path)]) == path
    COMMANDS[path].make_context("bridgeta", words[len(path) :])


def list_callbacks(group: typer.Typer) -> Iterator[Any]:
    yield from (command.callback for command in group.registered_commands)
    for below in group.registered_groups:
        yield from list_callbacks(below.typer_instance)


@pytest.mark.parametrize("callback", list_callbacks(whole), ids=lambda callback: callback.__name__)
def test_every_number_has_its_range(callback):
    for name, hint in get_type_hints(callback, include_extras=True).items():
        kind, *details = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if {int, float} & {kind, *get_args(kind)}:
            assert any(detail.min is not None for detail in details), name


def test_help_lists_all_that_ships():
    assert sorted(common.CONFIGURATIONS) == CONFIGURATIONS
    teachers = {name for name in SHIPPED if name.endswith("teacher")}
    assert set(common.STUDENTS) == SHIPPED.keys() - teachers


@pytest.mark.parametrize("command", [[], ["eval"], ["train", "student"], ["data", "check"]])
def test_a_short_option_asks_for_help(command):
    assert "Usage:" in run(*command, "-h")


def test_a_shell_completes_commands():
    words = {"_BRIDGETA_COMPLETE": "complete_bash", "COMP_WORDS": "bridgeta ev", "COMP_CWORD": "1"}
    program = (
        "import sys; sys.argv = ['bridgeta']; from bridgeta_core.cli.commands import app; app(prog_name='bridgeta')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["eval"]
