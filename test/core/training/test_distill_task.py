"""The student with a teacher: what is trained when, and what is exported."""

from __future__ import annotations

import copy
import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bridgeta_core.config import experiment as config
from bridgeta_core.deploy.teacher_weights import load_teacher
from bridgeta_core.deploy.weights import load_student, read_info
from bridgeta_core.distill.base import Distiller
from bridgeta_core.distill.dense import list_stage_widths
from bridgeta_core.distill.methods.direct import Direct
from bridgeta_core.distill.methods.logits import Logits
from bridgeta_core.distill.methods.registry import METHODS
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.training.distill_task import DistillTask, Ramp
from bridgeta_core.training.frozen import FrozenTeacher
from bridgeta_core.training.tasks import StudentTask
from bridgeta_core.training.train import train_distill, train_teacher
from bridgeta_core.utils.errors import BridgeTAError

AT_ONCE = ["distill.warmup_steps=0", "distill.ramp_steps=0", "distill.levels.calibrate=0"]


@pytest.fixture
def distil(two_scenes, teacher, tmp_path, monkeypatch):
    """Runs a distillation and gives its task, and the state of student and distiller before the first step."""

    def run(*overrides: str, folder: Path = tmp_path, resume: bool = False) -> tuple[DistillTask, dict]:
        seen: dict = {}

        def start(task: DistillTask) -> None:
            seen.update(task=task, before=copy.deepcopy(task.state_dict()))

        monkeypatch.setattr(DistillTask, "on_train_start", start)
        settings = two_scenes(f"distill.teacher={teacher}", "distill.statistics_frames=2", *overrides)
        train_distill(settings, folder, resume)
        return seen["task"], seen["before"]

    return run


def rows(folder: Path, column: str) -> list[float]:
    with (folder / "logs/version_0/metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


@pytest.fixture(scope="module")
def finished(two_scenes, teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    train_distill(two_scenes(f"distill.teacher={teacher}", *AT_ONCE, "train.ema=0.9", "data.labelled=0.5"), folder)
    return folder


def test_a_run_logs_every_term_and_the_methods_report(finished):
    for column in ("train/loss", "train/label", "train/kd/F", "train/kd/Z", "train/label/assistant", "train/rho_F"):
        assert len(rows(finished, column)) == 2, column
    terms = ("train/label", "train/kd/F", "train/kd/D", "train/kd/Z", "train/label/assistant")
    assert rows(finished, "train/loss")[0] == pytest.approx(sum(rows(finished, term)[0] for term in terms), rel=1e-5)


def test_the_assistant_is_scored_beside_the_student(finished):
    assert len(rows(finished, "val/assistant_miou")) == 2


def test_only_the_student_is_exported(finished, teacher):
    names = torch.load(finished / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in names} == {"student", "distiller"}
    student, info = load_student(finished / "student.safetensors")
    assert len(student.state_dict()) == len([name for name in names if name.startswith("student.")])
    assert info.provenance["unlabelled_samples"] == 2
    assert len(info.provenance["teacher_sha256"]) == 64


def test_drives_without_maps_are_distilled_from_the_cache(two_scenes, teacher, small_root, fleet_root, tmp_path):
    cached = f"data.unlabelled_root={fleet_root}", f"data.cache={tmp_path / 'cache'}"
    settings = two_scenes(f"distill.teacher={teacher}", *AT_ONCE, *cached, "train.epochs=1", "data.steps_per_epoch=2")
    train_distill(settings, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["frames"] == {"labelled": 4, "unlabelled": 4, "validation": 4}
    assert record["cache_seconds"] > 0
    assert (record["train_root"], record["unlabelled_root"]) == (str(small_root), str(fleet_root))
    assert record["synthetic_data"] == {"train": None, "unlabelled": None, "val": None}
    assert math.isfinite(rows(tmp_path / "run", "train/loss")[0])


def test_distillation_does_not_change_the_teacher(distil, teacher):
    task, _ = distil(*AT_ONCE)
    before, now = load_teacher(teacher)[0].state_dict(), task.teacher.network.state_dict()
    assert all(torch.equal(before[name], now[name]) for name in before)
    assert not task.teacher.network.training
    assert all(p.grad is None for p in task.teacher.network.parameters())


@pytest.mark.parametrize(("reading", "trained"), [("frozen", set()), ("shared", {"decoder", "head"})])
def test_the_warm_up_does_not_train_the_student(distil, reading, trained):
    task, before = distil("distill.warmup_steps=9", f"distill.bridgeta.reading={reading}", "data.steps_per_epoch=3")
    after = task.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("student.")} == trained
    assert not [name for name in changed if "running" in name]
    assert [name for name in changed if name.startswith("distiller.assistant.")]


def test_after_the_warm_up_the_student_is_trained(distil):
    task, before = distil("distill.warmup_steps=1", "distill.bridgeta.reading=frozen")
    after = task.state_dict()
    weights = [name for name in before if name.startswith("student.") and name.endswith("weight")]
    assert not [name for name in weights if torch.equal(before[name], after[name])]


def test_a_method_without_modules_has_no_warm_up(distil):
    task, before = distil("distill.method=direct", "distill.warmup_steps=9")
    assert not torch.equal(before["student.head.classify.weight"], task.student.head.classify.weight)


def test_a_method_without_levels_to_calibrate_computes_its_losses_once_per_step(distil, monkeypatch):
    """What it keeps of earlier steps, such as a queue, must not get a batch twice."""
    steps, compute_losses = [], Logits.compute_losses

    def count(self, teacher, student, labels, context):
        steps.append(context.step)
        return compute_losses(self, teacher, student, labels, context)

    monkeypatch.setattr(Logits, "compute_losses", count)
    distil("distill.method=logits", "distill.calibrate_steps=1", "distill.levels.calibrate=1", "train.epochs=2")
    assert steps == list(range(len(steps)))


def test_levels_are_calibrated_once_over_all_resumptions(distil, tmp_path, monkeypatch):
    calls = []

    def calibrate(self, label_loss, student, losses, share):
        calls.append((label_loss.item(), share, losses["kd/F"].item()))
        assert student.F.requires_grad
        self.levels.weight.mul_(3)

    monkeypatch.setattr(Direct, "calibrate", calibrate)
    options = ["distill.method=direct", "distill.calibrate_steps=1", "distill.levels.calibrate=0.25", "train.epochs=3"]
    monkeypatch.setattr(DistillTask, "on_train_epoch_end", lambda task: 1 / (2 - task.current_epoch), raising=False)
    with pytest.raises(ZeroDivisionError):
        distil(*options)
    monkeypatch.undo()
    monkeypatch.setattr(Direct, "calibrate", calibrate)
    state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert state["calibrated"]
    train_distill(config.load(config.Experiment, tmp_path / "experiment.yaml"), tmp_path, resume=True)
    assert [share for _, share, _ in calls] == [0.25]
    assert calls[0][2] > 0  # at full strength, although the ramp has hardly begun
    weight = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]["distiller.levels.weight"]
    assert weight.tolist() == [3.0, 1.5, 3.0]


def test_one_seed_gives_one_student_with_and_without_a_teacher(two_scenes, teacher):
    settings = two_scenes(f"distill.teacher={teacher}")
    alone = StudentTask(settings, {}).student.state_dict()
    taught = DistillTask(settings, {}, FrozenTeacher.load(teacher, settings)).student.state_dict()
    assert all(torch.equal(alone[name], taught[name]) for name in alone)


def test_the_decoder_can_start_from_the_teachers(two_scenes, teacher):
    settings = two_scenes(f"distill.teacher={teacher}", "distill.decoder_from_teacher=true")
    task, trained = DistillTask(settings, {}, FrozenTeacher.load(teacher, settings)), load_teacher(teacher)[0]
    for part in ("decoder", "head"):
        mine, its = getattr(task.student, part).state_dict(), getattr(trained, part).state_dict()
        assert all(torch.equal(mine[name], its[name]) for name in its)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.resolution=4.0", "the label grid"),
        ("data.cameras=[CAM_BACK,CAM_FRONT]", r"data\.cameras"),
        ("model.image.width=128", r"model\.image"),
        ("model.lift.grid.resolution=6.4", r"features on .*the student's are on"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(two_scenes, teacher, tmp_path, override, message):
    with pytest.raises(BridgeTAError, match=message) as caught:
        train_distill(two_scenes(f"distill.teacher={teacher}", override), tmp_path)
    assert caught.value.exit_code == 2


def test_a_head_that_does_not_fit_the_teachers_is_refused(two_scenes, teacher):
    settings = two_scenes(f"distill.teacher={teacher}", "distill.decoder_from_teacher=true", "model.head.width=24")
    with pytest.raises(BridgeTAError, match="decoder_from_teacher=false"):
        DistillTask(settings, {}, FrozenTeacher.load(teacher, settings))


def test_with_the_cache_the_teacher_does_not_run(distil, tmp_path, monkeypatch):
    off = ["data.augment.flip=false", "data.augment.colour=0", "train.epochs=1", *AT_ONCE]
    cache = f"data.cache={tmp_path / 'cache'}"
    distil(*off, folder=tmp_path / "plain")
    distil(*off, cache, folder=tmp_path / "first")

    def forbidden(*_):
        raise AssertionError("the teacher ran")

    monkeypatch.setattr(Teacher, "forward", forbidden)
    distil(*off, cache, folder=tmp_path / "again")
    losses = [rows(tmp_path / name, "train/loss") for name in ("plain", "first", "again")]
    assert losses[1] == losses[2]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_lidar_teacher_works_with_any_image_size(two_scenes, tmp_path):
    short = ["train.epochs=1", "data.steps_per_epoch=1"]
    path = train_teacher(two_scenes("teacher.sensors=lidar", *short), tmp_path / "teacher")
    settings = two_scenes(f"distill.teacher={path}", "model.image.width=128", *short, *AT_ONCE)
    assert read_info(train_distill(settings, tmp_path / "student")).provenance["steps"] == 1


def test_strength_warms_up_rises_holds_and_falls():
    ramp = Ramp(steps=1000, warmup=100, rise=200, peak=2.0, final=0.5)
    assert [ramp.is_warming_up(step) for step in (0, 99, 100)] == [True, True, False]
    expected = {50: 2.0, 100: 0.0, 150: 0.5, 200: 1.0, 300: 2.0, 800: 2.0, 900: 1.5, 1000: 1.0}
    assert {step: ramp.strength_at(step) for step in expected} == pytest.approx(expected)
    assert ramp.strength_at(850) == pytest.approx(2 * (0.5 + 0.25 * (1 + math.cos(math.pi / 4))))


def test_without_a_rise_strength_is_full_at_once():
    assert Ramp(steps=10).strength_at(0) == Ramp(steps=10).strength_at(9) == 1.0


class Curious(Distiller):
    """A method that uses every hook, and remembers what it was given."""

    needs_live_teacher = True

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.weight, self.fast = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.examples, self.contexts = [], []

    def prepare(self, examples, teacher) -> None:
        self.examples = [*examples, *examples]

    def view(self, batch, step):
        return replace(batch, images=batch.images.flip(-1), labels=batch.labels.flip(-2))

    def parameter_groups(self):
        return [{"params": [self.fast], "lr": 0.5, "weight_decay": 0.0}]

    def compute_losses(self, teacher, student, labels, context):
        self.contexts.append((context, labels))
        return {"kd/F": context.strength * self.weight * self.fast * (teacher.F - student.F).square().mean()}


@pytest.fixture
def curious(distil, monkeypatch):
    monkeypatch.setitem(METHODS, "curious", Curious)
    options = [*AT_ONCE, "distill.method=curious", "train.epochs=1", "data.steps_per_epoch=2", "data.labelled=0.5"]
    return lambda *more, **where: distil(*options, *more, **where)[0]


def test_a_method_is_prepared_on_examples_that_can_be_read_again_without_hidden_labels(curious):
    examples = curious().distiller.examples
    assert len(examples) % 2 == 0
    half = len(examples) // 2
    for one, again in zip(examples[:half], examples[half:], strict=True):
        assert torch.equal(one.taps.F, again.taps.F)
        assert one.fused.shape[0] == len(one.labels.masks)
    known = torch.cat([example.labels.known.any(dim=1) for example in examples[:half]])
    masks = torch.cat([example.labels.masks.flatten(1).any(dim=1) for example in examples[:half]])
    assert known.any()
    assert not known.all()
    assert not masks[~known].any()


def test_examples_show_the_teacher_on_transformed_frames_by_a_step_that_counts_on(curious, monkeypatch):
    steps = []

    def view(self, batch, step):
        steps.append(step)
        return replace(
            batch, points=[torch.cat([points[:, :2] + step, points[:, 2:]], dim=1) for points in batch.points]
        )

    monkeypatch.setattr(Curious, "view", view)
    examples = curious().distiller.examples
    assert [example.step for example in examples] == list(range(len(examples))) == steps[: len(examples)]
    assert torch.equal(examples[0].view.F, examples[0].taps.F)
    assert not any(torch.allclose(example.view.F, example.taps.F) for example in examples[1:])
    assert not examples[0].view.F.requires_grad


def test_a_method_sees_what_lies_inside_the_networks(curious):
    task = curious()
    for context, _ in task.distiller.contexts:
        assert [stage.shape[1] for stage in context.stages] == list_stage_widths(task.student)
        assert all(stage.requires_grad for stage in context.stages)
        assert context.fused.shape[1] == task.teacher.network.fuser[0].in_channels


def test_a_method_can_look_at_a_transformed_batch_without_touching_running_statistics(curious, monkeypatch, tmp_path):
    task = curious()
    statistics = {n: x for n, x in task.student.named_buffers() if "running" in n}
    monkeypatch.setattr(Curious, "view", Distiller.view)
    plain = curious(folder=tmp_path / "plain")
    for context, labels in task.distiller.contexts:
        assert torch.equal(context.view.labels.masks, labels.masks.flip(-2))
        assert context.view.student.Z.requires_grad
        assert not context.view.teacher.Z.requires_grad
    assert all(context.view is None for context, _ in plain.distiller.contexts)
    assert all(torch.equal(statistics[n], x) for n, x in plain.student.named_buffers() if "running" in n)


def test_a_method_can_train_parameters_at_a_rate_of_their_own(curious):
    task = curious()
    groups = task.optimizers().param_groups
    assert [g["max_lr"] for g in groups if any(p is task.distiller.fast for p in g["params"])] == [0.5]
    others = [g for g in groups if any(p is task.distiller.weight for p in g["params"])]
    assert [g["max_lr"] for g in others] == [task.experiment.train.learning_rate]
    trained = [p for g in groups for p in g["params"]]
    assert len(trained) == len({id(p) for p in trained}) == len(list(task.parameters()))


def test_where_a_method_needs_a_live_teacher_the_cache_holds_no_taps(curious, tmp_path):
    contexts = curious(f"data.cache={tmp_path / 'cache'}").distiller.contexts
    assert all(context.fused is not None for context, _ in contexts)
    assert list((tmp_path / "cache").glob("*-frames-*"))
    assert list((tmp_path / "cache").glob("*-points-*"))
    assert not list((tmp_path / "cache").glob("*-taps-*"))
