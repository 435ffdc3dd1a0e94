"""The command line: a user's mistake is one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

import bridgeta_core
from bridgeta_core.cli import commands as core_cli
from bridgeta_core.utils.files import hold_lock
from bridgeta_ros import cli
from bridgeta_synth import SynthSettings

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def bridgeta(monkeypatch, capsys):
    """Run a command line; return its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bridgeta", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def only_message(err: str) -> str:
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("bridgeta: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("train", "student", "tiny", "train.epoch=3"), 2, "train.epoch"),
        (("eval", "tiny", "there", "--version", "v1.0-mini", "--labels", "thin"), 2, "--labels: mode = 'thin' is not"),
        (("train", "student", "tiny", "train.epochs=0"), 2, "at least 1"),
        (("train", "student", "nothing_like_it"), 2, "tiny"),
        (("eval", "no_such_weights", "{root}"), 2, "no_such_weights"),
        (("view", "{empty}", "{empty}/out.png"), 2, "v1.0-"),
        (("view", "{root}", "{empty}/out.png", "--sample", "zzz"), 2, "zzz"),
        (("bag", "{root}", "{empty}/bag", "--scene", "scene-9999"), 2, "scene-9999"),
        (("replay", "{empty}/nothing", "{empty}/out"), 1, "nothing"),
        (("replay", "{root}", "{empty}/out"), 1, "{root}"),
        (("report", "{empty}", "{empty}", "{empty}/report.html"), 1, "{empty}"),
        (("synth", "{empty}/town", "--version", "1.0"), 2, "version"),
        (("export", "tiny", "{empty}/out", "--format", "tflite"), 2, "'tflite' is not one of onnx, openvino, aoti"),
        (("export", "tiny", "{empty}/out", "--for", "boat"), 2, "there is --for vehicle"),
        (("export", "tiny", "{empty}/out", "--for", "vehicle", "--format", "openvino"), 2, "has ONNX graphs"),
        (("export", "no_such_weights", "{empty}/out"), 2, "no_such_weights"),
        (("export", "{root}/synth.json", "{empty}/out"), 1, "safetensors"),
        (("export", "tiny", "{root}", "--overwrite"), 2, "{root}: holds something else"),
        (("export", "tiny", "{root}/synth.json", "--overwrite"), 2, "is a file, and the output is a folder"),
        (("export", "tiny", "{empty}/out", "--data", "{empty}"), 2, "v1.0-"),
        (("export", "tiny", "{empty}/out", "--data", "{root}", "--scenes", "scene-9999"), 2, "scene-9999"),
        (("synth", "{root}", "--scenes", "1"), 2, "{root}"),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_writes_nothing(
    bridgeta, synthetic_root, tmp_path, arguments, code, says
):
    places = {"root": synthetic_root, "empty": tmp_path}
    got, _, err = bridgeta(*(argument.format(**places) for argument in arguments))
    assert says.format(**places) in only_message(err)
    assert got == code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (("synth", "town"), "--scenes", "0"),
        (("export", "tiny", "out"), "--sets", "0"),
        (("export", "tiny", "out"), "--tolerance", "nan"),
        (("data", "check", "root"), "--jobs", "0"),
        (("replay", "in", "out"), "--threshold", "1.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_number_out_of_range_is_said_by_its_option(bridgeta, tmp_path, monkeypatch, command, option, value):
    monkeypatch.chdir(tmp_path)
    code, _, err = bridgeta(*command, option, value)
    assert code == 2
    assert option in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_format_that_is_not_installed_is_named_with_its_extra(bridgeta, tmp_path, monkeypatch):
    from bridgeta_core.deploy.export import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "openvino" else object())
    code, _, err = bridgeta("export", "tiny", tmp_path / "out", "--format", "openvino")
    assert "needs the package openvino. pip install '.[openvino]'" in only_message(err)
    assert code == 2
    monkeypatch.setattr(formats.shutil, "which", lambda name: None)
    code, _, err = bridgeta("export", "tiny", tmp_path / "out", "--format", "aoti")
    assert "this format compiles with g++, which is not there" in only_message(err)
    assert not list(tmp_path.iterdir())


def test_export_compares_on_a_dataset_and_the_example_calls_its_graphs(bridgeta, synthetic_root, tmp_path, capsys):
    code, out, _ = bridgeta(
        "export", "tiny", tmp_path / "out", "--data", synthetic_root, "--sets", 2, "--for", "vehicle"
    )
    assert code == 0
    assert f"On 2 sets of images of {synthetic_root} (all) no probability differs by more than" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(
            "README.md",
            "bev.onnx",
            "description.json",
            "example.py",
            "image.onnx",
            "lift.onnx",
            "lift_plan.py",
            "sample",
        )
    }
    pytest.importorskip("openvino")
    runpy.run_path(str(EXAMPLES / "call_exported_graph.py"))["main"](str(tmp_path / "out"))
    said, _, difference = capsys.readouterr().out.strip().rpartition(" ")
    assert said == "largest difference from BridgeTA:"
    assert float(difference) < 1e-3


def test_ctrl_c_is_answered_in_one_line_and_leaves_nothing(bridgeta, synthetic_root, tmp_path, monkeypatch):
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridgeta_core.data.nuscenes.dataset.SensorRecord.read_bytes", interrupted)
    code, _, err = bridgeta("bag", synthetic_root, tmp_path / "bag", "--scene", "scene-0001")
    assert (code, "interrupted" in err.splitlines()[-1]) == (130, True)
    assert not list(tmp_path.iterdir())


def test_a_command_whose_extra_is_not_installed_says_so(bridgeta, synthetic_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    # What is imported anew in this test becomes an attribute of its package too, and must not stay it.
    monkeypatch.setattr(bridgeta_core, "training", None, raising=False)
    for name in [name for name in sys.modules if name.startswith("bridgeta_core.training")]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = bridgeta("train", "student", "tiny")
    assert code == 1
    assert "pip install '.[train]'" in only_message(err)


def test_the_only_table_folder_is_found_and_several_are_an_error(synthetic_root, tmp_path):
    assert core_cli.find_table_version(synthetic_root, None) == "v1.0-mini"
    for name in ("v1.0-mini", "v1.0-trainval"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scene.json").write_text("[]")
    with pytest.raises(core_cli.BridgeTAError, match=r"v1\.0-mini, v1\.0-trainval"):
        core_cli.find_table_version(tmp_path, None)


def test_bag_replay_report_and_eval_run_from_the_command_line(bridgeta, synthetic_root, tmp_path):
    drive, bev, page, scores = (tmp_path / name for name in ("drive", "bev", "report.html", "scores"))
    assert bridgeta("bag", synthetic_root, drive, "--scene", "scene-0001", "--keyframes-only")[0] == 0
    code, out, _ = bridgeta("replay", drive, bev)
    assert code == 0
    assert "5 used" in out
    assert bridgeta("report", bev, drive, page)[0] == 0
    assert page.stat().st_size > 10_000
    code, out, _ = bridgeta("eval", "tiny", synthetic_root, "--labels", "exact", "--out", scores)
    assert code == 0
    assert "exact labels" in out
    content = json.loads((scores / "evaluation.json").read_text())
    assert (content["samples"], content["labels"]) == (5, "exact")
    assert all(Path(scores / name).stat().st_size > 1_000 for name in ("evaluation.png", "curves.png", "worst.png"))


def test_two_demos_do_not_write_into_one_folder(bridgeta, tmp_path):
    with hold_lock(tmp_path / ".lock", wait=False):
        code, _, err = bridgeta("demo", tmp_path)
    assert code == 1
    assert "another demo is written here" in only_message(err)


@pytest.mark.parametrize("command", ["eval tiny {root} --out", "train student tiny --out", "demo"])
def test_a_folder_of_outputs_that_is_a_file_is_refused(bridgeta, synthetic_root, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    code, _, err = bridgeta(*command.format(root=synthetic_root).split(), tmp_path / "file")
    assert code == 2
    assert "is no folder" in only_message(err)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_demo_makes_all_that_it_names(bridgeta, tmp_path, monkeypatch):
    short = SynthSettings(scenes=1, duration=1.0, version="v1.0-mini", image_scale=0.25)
    monkeypatch.setattr("bridgeta_ros.bags.demo.DRIVE", short)
    for _ in range(2):  # the second run replaces the first
        code, out, _ = bridgeta("demo", tmp_path / "demo")
        assert code == 0
    for name in ("drive", "bev", "sample.png", "report.html"):
        assert name in out
        assert (tmp_path / "demo" / name).exists()
