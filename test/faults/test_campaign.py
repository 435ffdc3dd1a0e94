"""A short campaign, and the parts of it that judge: an oracle that cannot fail would prove nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import COMMANDS
from hypothesis import given
from hypothesis import strategies as st
from mutants import TARGETS, Mutant, mutate, read_corpus
from numpy.random import default_rng
from oracle import Expected, check_deceived, check_ending, check_outputs, check_surroundings, read_stamps, read_tree
from sandbox import Outcome, Sandbox
from tracing import Injection, Operation, explain_no_strace, read_operations, was_met
from typer.main import get_command

from bridgeta_ros.commands import app

HERE = Path(__file__).parent
# A demo is a synth, a bag, a replay and a report; a benchmark and the lists of what ships write nothing.
NOT_TRIED = {"demo", "bench", "config", "weights", "push"}
OUTPUT = {"bag/bag.mcap": b"messages", "bag/metadata.yaml": b"version: 9\n"}
OWNED = "out/.bag.0123abcd-89ef4567-12-3456-0.partial/bag.mcap"
SUCCESS = Outcome(0, "Wrote bag\n", "", 0, 0)
FAILURE = Outcome(1, "", "bridgeta: out/bag: cannot be written (No space left on device)\n", 0, 0)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "weights").write_bytes(b"12")
    return Sandbox(tmp_path / "try", tmp_path / "in")


def write(sandbox: Sandbox, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = sandbox.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def expected(sandbox: Sandbox) -> Iterator[Expected]:
    write(sandbox, OUTPUT)
    new = read_tree(sandbox.out)
    write(sandbox, {"bag/bag.mcap": b"earlier"})
    earlier = read_tree(sandbox.out)
    for name in OUTPUT:
        (sandbox.out / name).unlink()
    (sandbox.out / "bag").rmdir()
    return Expected(new, frozenset(), earlier)


def list_leaves() -> Iterator[str]:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        children = getattr(command, "commands", None)
        yield from (f"{name} {child}" for child in children) if children else (name,)


def test_every_command_that_writes_is_tried():
    tried = {" ".join(command.arguments[:2]) for command in COMMANDS.values()}
    missing = {leaf for leaf in list_leaves() if not any(f"{start} ".startswith(f"{leaf} ") for start in tried)}
    assert missing <= NOT_TRIED


def test_every_format_is_read_by_a_command_of_the_campaign():
    assert {target.command for target in TARGETS.values()} <= COMMANDS.keys()


@pytest.mark.slow
@pytest.mark.skipif(explain_no_strace() is not None, reason=str(explain_no_strace()))
def test_a_short_campaign_breaks_no_promise(tmp_path):
    log = tmp_path / "log.jsonl"
    options = ["--tries", "14", "--jobs", "1", "--log", str(log), "--commands", "bag", "data check"]
    ended = subprocess.run([sys.executable, HERE / "campaign.py", *options], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdicts = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(verdicts) >= 14
    assert {"kill", "error", "mutant"} <= {verdict["kind"] for verdict in verdicts}
    assert sum(verdict["met"] for verdict in verdicts) > len(verdicts) / 2


def test_whole_earlier_and_absent_outputs_are_as_promised(sandbox, expected):
    command = COMMANDS["bag"]
    assert check_outputs(command, sandbox, expected, 1) == []
    write(sandbox, {**OUTPUT, "bag/bag.mcap": b"earlier"})
    assert check_outputs(command, sandbox, expected, 1) == []
    write(sandbox, OUTPUT)
    assert check_outputs(command, sandbox, expected, 0) == []


@pytest.mark.parametrize(
    ("files", "ending", "problem"),
    [
        ({}, 0, "bag is not whole"),
        ({"bag/bag.mcap": b"messages"}, 1, "bag is not whole: lacks ['bag/metadata.yaml']"),
        ({**OUTPUT, "bag/bag.mcap": b"other"}, 0, "bag/bag.mcap differs from that of an undisturbed run"),
        ({**OUTPUT, "bag/bag.mcap": b"earlier"}, 0, "bag/bag.mcap differs"),
        ({**OUTPUT, "beside": b""}, 0, "left beside"),
        ({OWNED.removeprefix("out/"): b""}, 1, "left .bag.0123abcd"),
    ],
    ids=["absent", "half", "other", "earlier", "beside", "temporary"],
)
def test_an_output_that_is_not_as_promised_is_named(sandbox, expected, files, ending, problem):
    write(sandbox, files)
    assert any(found.startswith(problem) for found in check_outputs(COMMANDS["bag"], sandbox, expected, ending))


def test_a_killed_command_may_leave_temporary_files_alone(sandbox, expected):
    write(sandbox, {OWNED.removeprefix("out/"): b""})
    assert check_outputs(COMMANDS["bag"], sandbox, expected, None) == []
    write(sandbox, {"bag/bag.mcap": b"messages"})
    assert check_outputs(COMMANDS["bag"], sandbox, expected, None) != []


def test_an_output_that_varies_is_read(sandbox, expected):
    write(sandbox, {**OUTPUT, "bag/metadata.yaml": b"version: 8\n"})
    varying = Expected(expected.new, frozenset({"bag/metadata.yaml"}), {})
    assert check_outputs(COMMANDS["bag"], sandbox, varying, 0) == []
    write(sandbox, {"bag/metadata.yaml": b"version: [8\n"})
    assert "bag/metadata.yaml is damaged" in check_outputs(COMMANDS["bag"], sandbox, varying, 0)[0]


def test_an_output_that_grows_may_be_of_an_earlier_epoch_until_the_end_and_is_whole_then_too(sandbox):
    command, path = COMMANDS["train student"], "student_run/samples.png"
    at_the_end = Expected({path: "another epoch's"}, frozenset(), {})

    def judge(content, ending):
        write(sandbox, {path: content})
        return [problem for problem in check_outputs(command, sandbox, at_the_end, ending) if "samples.png" in problem]

    picture = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    assert judge(picture, None) == judge(picture, 1) == []
    assert judge(picture, 0) == [f"{path} differs from that of an undisturbed run"]
    assert "is damaged" in judge(picture[:20], None)[0]


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (Outcome(-11, "", "", 0, 0), "ended by signal 11"),
        (Outcome(1, "", "Traceback (most recent call last):\nbridgeta: x\n", 0, 0), "printed: Traceback"),
        (Outcome(1, "", "", 0, 0), "exit code 1 with 0 messages"),
        (Outcome(1, "", "bridgeta: a\nbridgeta: b\n", 0, 0), "exit code 1 with 2 messages"),
        (Outcome(3, "", "bridgeta: a\n", 0, 0), "exit code 3"),
        (Outcome(127, "", "sh: bridgeta: not found\n", 0, 0), "exit code 127"),
        (Outcome(0, "", "", 0, 0, ["12 python"]), "still runs: 12 python"),
    ],
    ids=["signal", "traceback", "silent", "two lines", "code", "shell", "running"],
)
def test_an_end_that_is_not_as_promised_is_named(outcome, problem):
    assert problem in " ".join(check_ending(outcome))


def test_an_end_in_success_or_one_line_is_as_promised():
    assert check_ending(SUCCESS) == check_ending(FAILURE) == []


def test_where_the_c_library_finds_no_memory_it_has_the_last_word():
    words = "cannot allocate memory for thread-local data: ABORT\n"
    assert check_ending(Outcome(127, "", words, 0, 0)) == []
    assert check_ending(Outcome(127, "", words, 0, 0, ["12 python"])) == ["still runs: 12 python"]
    assert check_ending(Outcome(127, "", "Traceback (most recent call last):\n" + words, 0, 0)) != []


ENDS = "OSError: [Errno 24] Too many open files: 'collections'\n"
OF_WORKER = """Traceback (most recent call last):
  File "<string>", line 1, in <module>
  File "/usr/lib/python3.11/multiprocessing/__init__.py", line 16, in <module>
    from . import context
  File "<frozen importlib._bootstrap>", line 1176, in _find_and_load
"""
OF_OURS = OF_WORKER + '  File "/src/bridgeta_core/utils/files.py", line 7, in <module>\n    import os\n'


def test_what_python_says_before_any_code_of_ours_is_not_judged():
    trace = "Traceback (most recent call last):\n  OSError: [Errno 24] Too many open files\n"
    of_package = f"Error processing line 1 of /venv/lib/package.pth:\n\n  {trace}\nRemainder of file ignored\n"
    for words in (of_package, OF_WORKER + ENDS):
        assert check_ending(Outcome(0, "", words, 0, 0)) == []
        assert check_ending(Outcome(0, "", words + trace, 0, 0)) != []
    for words in (OF_OURS + ENDS, OF_WORKER + "ValueError: no\n"):
        assert check_ending(Outcome(0, "", words, 0, 0)) != []


def test_what_is_written_elsewhere_is_named(sandbox):
    before = read_stamps(sandbox.inputs)
    assert check_surroundings(sandbox, before, 0) == []
    (sandbox.inputs / "weights").write_bytes(b"123")
    (sandbox.home / "notes").touch()
    (sandbox.path / "EVIL").touch()
    (sandbox.tmp / "scratch").touch()
    found = check_surroundings(sandbox, before, 0)
    assert [problem.split()[0] for problem in found] == ["changed", "wrote", "wrote", "left"]


@pytest.mark.parametrize("place", ["cache/frames", "out/student_run/checkpoints"])
def test_a_temporary_file_may_stay_where_the_command_says_that_it_cannot_be_removed(sandbox, place):
    folder = sandbox.path / place / ".scene-0001.0123abcd-89ef4567-12-3456-0.partial"
    folder.mkdir(parents=True)
    (folder / "images.npy").touch()

    def judge(said):
        nothing = Expected({}, frozenset(), {})
        found = check_outputs(COMMANDS["train student"], sandbox, nothing, 1, said)
        return [p for p in found if p.startswith("left")] + check_surroundings(sandbox, {}, 1, said)

    sandbox.inputs.joinpath("weights").unlink()
    admitted = f"{place}/{folder.name}: cannot be removed (Too many open files); a later output will try again"
    assert judge(admitted) == []
    inside = str(folder.relative_to(sandbox.path).joinpath("images.npy")).partition("/")[2]
    assert judge("") == judge(admitted.replace("0123abcd", "0123abce")) == [f"left {inside}"]


def test_a_failure_that_leaves_an_output_is_named(sandbox):
    write(sandbox, OUTPUT)
    assert check_deceived(COMMANDS["bag"], sandbox, None, FAILURE) == ["failed and left bag"]


def test_a_change_that_a_checked_file_hides_is_named(sandbox, expected):
    write(sandbox, {**OUTPUT, "bag/metadata.yaml": b"version: 8\n"})
    found = check_deceived(COMMANDS["bag"], sandbox, expected, SUCCESS)
    assert "bag/metadata.yaml differs" in found


@given(st.binary(max_size=400), st.integers(0, 2**32), st.sampled_from(["a.json", "a.mcap"]))
def test_a_mutant_is_the_same_after_it_was_kept(data, seed, path):
    mutant = mutate("MCAP", path, data, default_rng(seed))
    kept = Mutant.from_json(json.loads(json.dumps(mutant.to_json())))
    assert kept == mutant
    assert kept.apply(data) == mutant.apply(data)


def test_the_corpus_is_of_known_targets():
    assert {mutant.target for mutant in read_corpus()} <= TARGETS.keys()


def test_operations_are_numbered_by_thread_and_call(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        '11 openat(AT_FDCWD</t>, "/usr/lib/a", O_RDONLY) = 3</usr/lib/a>\n'
        '11 openat(AT_FDCWD</t>, "out/b", O_WRONLY|O_CREAT, 0666) = 4</t/out/b>\n'
        '11 write(4</t/out/b>, ""..., 5 <unfinished ...>\n'
        "12 write(1<pipe:[3]>, ..., 2) = 2\n"
        "11 <... write resumed>) = 5\n"
        '12 rename("/t/out/b", "/t/out/c") = 0\n'
    )
    assert read_operations(log, [Path("/t")]) == [
        Operation("openat", 2, "out/b", True),
        Operation("write", 1, "/t/out/b", True),
        Operation("rename", 1, "/t/out/b", True),
    ]


@pytest.mark.parametrize(("path", "met"), [("/t/out/b", True), ("/usr/lib/a", False)])
def test_an_injection_counts_where_it_met_the_sandbox(tmp_path, path, met):
    log, operation = tmp_path / "log", Operation("rename", 1, "/t/out/b", True)
    log.write_text(f'11 rename("{path}", "{path}c") = ?\n')
    assert was_met(log, Injection(operation), [Path("/t")]) is met
    log.write_text(f'11 rename("{path}", "{path}c") = -1 EIO (Input/output error) (INJECTED)\n')
    assert was_met(log, Injection(operation, "EIO"), [Path("/t")]) is met


def test_an_error_in_the_interpreters_files_too_is_no_hit_but_a_kill_is(tmp_path):
    log, operation = tmp_path / "log", Operation("openat", 1, "/t/out/b", True)
    calls = [f'{thread} openat(AT_FDCWD</t>, "{path}", O_RDONLY)' for thread, path in ((11, "/t/b"), (12, "/lib/a.py"))]
    log.write_text("\n".join(f"{call} = -1 EACCES (Permission denied) (INJECTED)" for call in calls))
    assert not was_met(log, Injection(operation, "EACCES"), [Path("/t")])
    log.write_text("\n".join(f"{call} = ?" for call in calls))
    assert was_met(log, Injection(operation), [Path("/t")])


@pytest.mark.parametrize(
    ("name", "met", "impossible"),
    [
        ("openat", 'AT_FDCWD</t>, "out/b", O_WRONLY|O_CREAT, 0666', 'AT_FDCWD</t>, "/t", O_RDONLY|O_DIRECTORY'),
        ("write", '4</t/out/b>, ""..., 5', '7<pipe:[2203]>, ""..., 5'),
    ],
)
def test_an_error_that_a_thread_cannot_meet_is_no_hit(tmp_path, name, met, impossible):
    log, injection = tmp_path / "log", Injection(Operation(name, 1, "/t/out/b", True), "ENOSPC")
    lines = [f"{thread} {name}({call}) = -1 ENOSPC (INJECTED)" for thread, call in ((11, met), (12, impossible))]
    log.write_text(lines[0])
    assert was_met(log, injection, [Path("/t")])
    log.write_text("\n".join(lines))
    assert not was_met(log, injection, [Path("/t")])
