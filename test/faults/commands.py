"""The commands that write, what they are given, and what they leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION = "v1.0-mini"
SCENE = "scene-0001"
TRAINING = (
    "tiny",
    f"data.version={VERSION}",
    "data.cameras=[CAM_FRONT,CAM_BACK]",
    "data.batch_size=2",
    "data.workers=0",
    "data.cache={cache}/frames",
    "labels.cache={cache}/labels",
    "train.epochs=2",
    "teacher.lidar.sweeps=1",
    "model.image.width=64",
    "model.image.height=32",
    "model.lift.grid.resolution=3.2",
    "model.lift.depth_step=4.0",
    "grid.resolution=2.0",
    "data.train_root={inputs}/root",
    "data.val_root={inputs}/root",
)
SYNTH = ("--version", VERSION, "--duration", "0.5", "--image-scale", "0.05", "--keyframes-only", "--jobs", "2")

EXPORT = ("--data", "{inputs}/root", "--sets", "2")


@dataclass(frozen=True)
class Command:
    """A command as a user types it; `{inputs}`, `{out}` and `{cache}` stand for folders.

    Each of `outputs`, paths below `{out}`, is whole or absent at any time. `unfinished` are patterns of what else may
    lie in `{out}` until the command has succeeded. `growing` are outputs that it writes anew as it goes on, whole every
    time. With the arguments `earlier` it makes an output that differs, and with `again` it replaces one, or goes on
    with what is there.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    earlier: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    growing: tuple[str, ...] = ()

    def build(self, folders: Mapping[str, Path], more: tuple[str, ...] = ()) -> list[str]:
        """Build the arguments of `bridgeta` with the folders `inputs`, `out` and `cache`."""
        return [argument.format_map(folders) for argument in (*self.arguments, *more)]


def _train(kind: str, *more: str) -> Command:
    run = f"{kind}_run"
    weights = "teacher.safetensors" if kind == "teacher" else "student.safetensors"
    files = (
        weights,
        "run.json",
        "experiment.yaml",
        "curves.png",
        "samples.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    )
    return Command(
        f"train {kind}",
        ("train", kind, *TRAINING, *more, "--out", f"{{out}}/{run}"),
        outputs=tuple(f"{run}/{name}" for name in files),
        again=("--resume",),
        unfinished=(f"{run}/*",),
        growing=(f"{run}/samples.png",),
    )


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "synth",
            ("synth", "{out}/root", *SYNTH, "--seed", "7"),
            outputs=("root",),
            earlier=("--seed", "8"),
            again=("--overwrite",),
            unfinished=("root.partial*",),
        ),
        Command(
            "bag",
            ("bag", "{inputs}/root", "{out}/bag", "--scene", SCENE),
            outputs=("bag",),
            earlier=("--no-lidar",),
            again=("--overwrite",),
        ),
        Command(
            "bag sqlite3",
            ("bag", "{inputs}/root", "{out}/bag", "--scene", SCENE, "--storage", "sqlite3", "--distro", "humble"),
            outputs=("bag",),
            earlier=("--no-lidar",),
            again=("--overwrite",),
        ),
        Command(
            "replay",
            ("replay", "{inputs}/bag", "{out}/replay", "--weights", "{inputs}/weights.safetensors"),
            outputs=("replay",),
            earlier=("--every", "2"),
            again=("--overwrite",),
        ),
        Command(
            "replay sqlite3",
            ("replay", "{inputs}/bag3", "{out}/replay3", "--weights", "{inputs}/weights.safetensors"),
            outputs=("replay3",),
            again=("--overwrite",),
        ),
        Command("report", ("report", "{inputs}/replay", "{inputs}/bag", "{out}/report.html"), outputs=("report.html",)),
        Command("report film", ("report", "{inputs}/replay", "{inputs}/bag", "{out}/film.mp4"), outputs=("film.mp4",)),
        Command(
            "view",
            ("view", "{inputs}/root", "{out}/view.png", "--weights", "{inputs}/weights.safetensors"),
            outputs=("view.png",),
            earlier=("--no-points",),
        ),
        Command(
            "view rig",
            ("view", "{inputs}/rig.yaml", "{out}/rig.png", "--weights", "{inputs}/weights.safetensors"),
            outputs=("rig.png",),
        ),
        Command(
            "view --check",
            ("view", "{inputs}/root", "{out}/sheet.jpg", "--check", "--count", "2"),
            outputs=("sheet.jpg",),
            earlier=("--seed", "1"),
        ),
        Command(
            "eval",
            ("eval", "{inputs}/weights.safetensors", "{inputs}/root", "--out", "{out}/eval"),
            outputs=("eval/evaluation.json", "eval/evaluation.png", "eval/curves.png", "eval/worst.png"),
            earlier=("--labels", "exact"),
        ),
        Command(
            "data check",
            ("data", "check", "{inputs}/broken", "--deep", "--jobs", "2", "--list", "{out}/list.txt"),
            outputs=("list.txt",),
        ),
        Command(
            "calibrate",
            ("calibrate", "{inputs}/weights.safetensors", "{inputs}/root", "{out}/calibrated.safetensors"),
            outputs=("calibrated.safetensors",),
        ),
        Command(
            "quantise",
            ("quantise", "{inputs}/weights.safetensors", "{inputs}/root", "{out}/int8.safetensors", "--samples", "2"),
            outputs=("int8.safetensors",),
        ),
        Command(
            "export",
            ("export", "{inputs}/weights.safetensors", "{out}/export", *EXPORT, "--for", "vehicle"),
            outputs=("export",),
            again=("--overwrite",),
        ),
        Command(
            "export openvino",
            ("export", "{inputs}/weights.safetensors", "{out}/export", *EXPORT, "--format", "openvino"),
            outputs=("export",),
            again=("--overwrite",),
        ),
        Command(
            "import",
            ("import", "{inputs}/swin.pth", "{out}/backbone", "--as", "backbone"),
            outputs=("backbone",),
            again=("--overwrite",),
        ),
        Command("data check root", ("data", "check", "{inputs}/root", "--deep", "--jobs", "1"), outputs=()),
        Command("data index", ("data", "index", "{inputs}/root"), outputs=()),
        _train("teacher"),
        _train("student"),
        _train("distill", "distill.teacher={inputs}/teacher_run/teacher.safetensors"),
        Command(
            "train settings",
            ("train", "student", "{inputs}/settings.yaml", "--out", "{out}/settings_run"),
            outputs=tuple(f"settings_run/{name}" for name in ("student.safetensors", "run.json", "experiment.yaml")),
            again=("--resume",),
            unfinished=("settings_run/*",),
        ),
        Command(
            "study collected",
            (
                "study",
                "{inputs}/study.yaml",
                "--out",
                "{inputs}/collected.json",
                "--render-only",
                "--table",
                "{out}/c.md",
            ),
            outputs=("c.md", "c.png"),
        ),
        Command(
            "study --collect",
            ("study", "{inputs}/study.yaml", "--out", "{inputs}/study", "--collect", "{out}/study.json"),
            outputs=("study.json",),
        ),
        Command(
            "study --render-only",
            ("study", "{inputs}/study.yaml", "--out", "{inputs}/study", "--render-only", "--table", "{out}/page.md"),
            outputs=("page.md", "page.png"),
        ),
    )
}
