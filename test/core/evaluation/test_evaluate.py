from __future__ import annotations

import io
import json
import math

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import ImageConfig, LiftConfig
from bridgeta_core.data.frames import FrameDataset, collate
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.evaluation.evaluate import evaluate, evaluate_constant, evaluate_weights
from bridgeta_core.evaluation.fused import Fusion
from bridgeta_core.evaluation.metric import MapIoU
from bridgeta_core.evaluation.report import Comparison
from bridgeta_core.evaluation.seen import SeenCells
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

VERSION, GRID = "v1.0-mini", BevGrid(-40, 40, -40, 40, 1.0)


@pytest.fixture(scope="module")
def frames(small_root):
    return FrameDataset(
        NuScenesDataset(small_root, VERSION), "all", ("CAM_FRONT",), ImageConfig(48, 32, margin=1.0), GRID
    )


def test_the_labels_themselves_score_one(frames):
    report = evaluate(lambda batch: batch.labels.float(), frames, "labels", workers=0)
    assert report.iou.miou == 1
    assert report.samples == 4


def test_a_report_can_be_printed_stored_and_drawn(frames, tmp_path):
    report = evaluate(lambda batch: batch.labels.float() * 0.42, frames, "faint labels", workers=0)
    content = json.loads(json.dumps(report.to_mapping(), allow_nan=False))
    assert content["miou"] == 1
    assert content["miou_at_0.5"] == 0
    assert content["classes"]["walkway"]["threshold"] == 0.35
    assert set(content["classes"]["divider"]["iou_by_range"]) == {"0-20 m", "20-35 m", "35-50 m"}
    console = Console(file=io.StringIO(), width=140)
    console.print(report.build_table())
    text = console.file.getvalue()
    assert all(name in text for name in (*CLASS_NAMES, "mean", "faint labels", "100.0", "4 samples"))
    report.draw(tmp_path / "figure")
    assert cv2.imread(str(tmp_path / "figure")).shape[2] == 3


def test_a_report_says_if_a_better_threshold_may_lie_beyond(frames):
    def predict(batch):
        faint = batch.labels.float() * 0.36
        faint[..., ::2] = 0
        return faint

    report = evaluate(predict, frames, "half of the labels", workers=0)
    console = Console(file=io.StringIO(), width=100)
    console.print(report.build_table())
    assert "<=0.35" in console.file.getvalue()
    assert "at the end of the thresholds" in console.file.getvalue()


def test_a_report_says_which_labels_it_scores_against(small_root, frames):
    exact, image = config.LabelConfig(mode="exact"), ImageConfig(48, 32, margin=1.0)
    other = FrameDataset(NuScenesDataset(small_root, VERSION), "all", ("CAM_FRONT",), image, GRID, labels=exact)
    true = {other.sample(i).token: torch.tensor(other.read_labels(i)[0]) for i in range(len(other))}

    def predict(batch):
        return torch.stack([true[token] for token in batch.tokens]).float()

    reports = [evaluate(predict, data, "exact labels", workers=0) for data in (other, frames)]
    assert [report.to_mapping()["labels"] for report in reports] == ["exact", "compatible"]
    assert reports[0].iou.miou == 1
    assert reports[1].iou.miou < 1
    assert "4 samples" in reports[0].build_table().caption
    assert "exact labels" in reports[0].build_table().caption
    constant = evaluate_constant(small_root, VERSION, small_root, VERSION, grid=GRID, labels=exact)
    assert constant.labels == "exact"
    assert constant.iou.best[0] != evaluate_constant(small_root, VERSION, small_root, VERSION, grid=GRID).iou.best[0]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_count_every_sample_to_its_own_scene(frames, batch_size):
    def predict(batch):
        """Depend on each sample's labels alone."""
        seeds = [int(labels.sum()) for labels in batch.labels]
        noise = [torch.rand(batch.labels.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (torch.stack(noise) + batch.labels) / 2

    by_scene = []
    for scene in ("mini_train", "mini_val"):
        one = FrameDataset(frames.dataset, scene, ("CAM_FRONT",), frames.image, GRID)
        by_scene += [evaluate(predict, one, "noise", batch_size=1, workers=0).figures]
    figures = evaluate(predict, frames, "noise", batch_size=batch_size, workers=0).figures
    assert figures.scenes == 2
    for name in ("counts", "histograms"):
        expected = np.concatenate([getattr(scene, name) for scene in by_scene])
        np.testing.assert_array_equal(getattr(figures, name), expected)


def test_a_report_gives_every_figure_an_interval(frames):
    report = evaluate(lambda batch: batch.labels.float() * 0.42, frames, "faint labels", workers=0)
    content = json.loads(json.dumps(report.to_mapping(), allow_nan=False))
    assert content["bootstrap"] == {"scenes": 2, "resamples": 1000, "level": 0.95}
    assert content["miou_interval"] == [1, 1]
    assert content["miou_at_0.5_interval"] == [0, 0]
    assert content["mean_average_precision"] == 1
    assert content["classes"]["walkway"]["average_precision_interval"] == [1, 1]
    console = Console(file=io.StringIO(), width=100)
    console.print(report.build_interval_table())
    text = console.file.getvalue()
    assert "100.0 (100.0 to 100.0)" in text
    assert "bootstrap over 2 scenes" in text


def test_one_scene_has_figures_without_intervals(frames):
    one = FrameDataset(frames.dataset, "mini_train", ("CAM_FRONT",), frames.image, GRID)
    report = evaluate(lambda batch: batch.labels.float(), one, "labels", workers=0)
    assert report.to_mapping()["miou_interval"] is None
    assert report.build_interval_table().caption == "One scene: no intervals"


def test_two_predictors_are_compared_by_scene(frames):
    def predict(batch):
        worse = batch.labels.float()
        worse[..., ::2] = 0
        return worse

    reports = [
        evaluate(p, frames, name, workers=0)
        for name, p in {"labels": lambda b: b.labels.float(), "half": predict}.items()
    ]
    better, worse = (report.iou.miou for report in reports)
    content = json.loads(json.dumps(Comparison.of(*reports).to_mapping(), allow_nan=False))
    assert content["against"]["subject"] == "half"
    assert content["difference"]["miou"] == pytest.approx(better - worse, abs=1e-6)
    low, high = content["difference"]["miou_interval"]
    assert 0 < low <= content["difference"]["miou"] <= high
    same = Comparison.of(reports[0], reports[0]).to_mapping()["difference"]
    assert same["classes"]["divider"]["iou_interval"] == [0, 0]
    console = Console(file=io.StringIO(), width=100)
    console.print(Comparison.of(*reports).build_table())
    assert f"+{100 * (better - worse):.1f}" in console.file.getvalue()


def test_an_unscored_class_is_null_with_a_note(small_root, tmp_path):
    boston = FrameDataset(
        NuScenesDataset(small_root, VERSION), "mini_val", ("CAM_FRONT",), ImageConfig(48, 32, margin=1.0), GRID
    )
    report = evaluate(lambda batch: batch.labels.float(), boston, "labels", scenes="mini_val", workers=0)
    assert report.to_mapping()["classes"]["stop_line"]["iou"] is None
    assert report.to_mapping()["notes"] == ["not scored, unknown to these maps or weights: stop_line"]
    assert report.iou.miou == 1
    report.draw(tmp_path / "figure")


def test_a_class_that_the_weights_did_not_learn_is_not_scored(frames):
    learned = [name != "divider" for name in CLASS_NAMES]
    report = evaluate(lambda batch: batch.labels.float(), frames, "labels", workers=0, learned=learned)
    assert report.to_mapping()["classes"]["divider"]["iou"] is None
    assert report.to_mapping()["notes"][0].startswith("not scored, unknown to these maps or weights: ")
    assert "divider" in report.to_mapping()["notes"][0]


def test_the_evaluate_constant_is_the_best_of_all_thresholds(small_root, frames):
    """Against trying every value of the mean training mask."""
    report = evaluate_constant(
        small_root, VERSION, small_root, VERSION, "mini_val", train_scenes="mini_train", grid=GRID
    )
    prior = np.mean([frames.read_labels(i)[0] for i in (0, 1)], axis=0)
    labels = np.stack([frames.read_labels(i)[0] for i in (2, 3)]).astype(bool)
    for c, name in enumerate(CLASS_NAMES):
        if name == "stop_line":  # unknown to the map of mini_val
            assert math.isnan(report.iou.best[c])
            continue
        truth = labels[:, c]
        scores = {}
        for t in np.unique(prior[c]):
            predicted = np.broadcast_to(prior[c] >= t, truth.shape)
            scores[t] = (predicted & truth).sum() / (predicted | truth).sum()
        assert report.iou.best[c] == pytest.approx(max(scores.values()))
        assert scores[report.iou.threshold[c]] == pytest.approx(report.iou.best[c])
        near = GRID.ranges() < 20
        predicted = np.broadcast_to(prior[c] >= report.iou.threshold[c], truth.shape)[:, near]
        if truth[:, near].any():
            expected = (predicted & truth[:, near]).sum() / (predicted | truth[:, near]).sum()
            assert report.iou.by_range[c, 0] == pytest.approx(expected)
        else:
            assert math.isnan(report.iou.by_range[c, 0])


def test_a_constant_is_perfect_on_its_own_training_sample(small_root, monkeypatch):
    read_labels = FrameDataset.read_labels
    monkeypatch.setattr(FrameDataset, "read_labels", lambda self, i: read_labels(self, 0))
    report = evaluate_constant(
        small_root, VERSION, small_root, VERSION, "mini_train", train_scenes="mini_train", grid=GRID
    )
    assert report.iou.miou == 1
    assert report.iou.miou_half == 1


def test_weights_are_scored_with_their_own_cameras_and_grid(two_scenes, small_root, tmp_path):
    from bridgeta_core.deploy.weights import save_weights
    from bridgeta_core.model.student import Student

    torch.manual_seed(0)
    student = Student(two_scenes().model, GRID).eval()
    path = tmp_path / "random.safetensors"
    save_weights(path, student, ["CAM_BACK", "CAM_FRONT"], {})
    report = evaluate_weights(path, small_root, VERSION, device="cpu", workers=0)
    assert report.subject == "random"
    assert report.samples == 4
    frames = FrameDataset(
        NuScenesDataset(small_root, VERSION), "all", ("CAM_BACK", "CAM_FRONT"), ImageConfig(96, 64, margin=1.0), GRID
    )
    metric = MapIoU(GRID)
    for frame in frames:
        with torch.inference_mode():
            plan = student.plan(frame.intrinsics[None], frame.ego_T_cam[None])
            metric.update(student(frame.images[None], plan).Z.sigmoid(), frame.labels[None], frame.known[None])
    np.testing.assert_allclose(report.iou.best, metric.result().best, atol=1e-3)


def test_what_is_seen_and_what_is_fused_are_figures_of_their_own(frames):
    def predict(batch):
        return torch.where(torch.from_numpy(in_view), batch.labels.float(), 0.5)

    cells = SeenCells(frames, LiftConfig())
    in_view = cells.find_in_view(frames.sample(0))
    report = evaluate(
        predict, frames, "a front camera", batch_size=3, workers=0, seen=cells, fusion=Fusion(GRID, cells)
    )
    content = json.loads(json.dumps(report.to_mapping(), allow_nan=False))
    assert content["miou"] < 0.5
    assert content["seen"]["miou"] == 1
    assert content["miou"] < content["fused"]["miou"]
    assert 0 < content["seen"]["share"] < in_view.mean()
    assert content["seen"]["samples_without_lidar"] == 0
    console = Console(file=io.StringIO(), width=120)
    console.print(report.build_interval_table())
    text = console.file.getvalue()
    assert all(words in text for words in ("IoU, seen cells", "IoU, fused", "% of the cells"))


@pytest.mark.parametrize("sensors", ["fusion", "lidar"])
def test_a_teacher_is_scored_as_it_is_trained(two_scenes, small_root, tmp_path, sensors):
    from bridgeta_core.deploy.teacher_weights import save_teacher
    from bridgeta_core.model.teacher import Teacher

    torch.manual_seed(0)
    experiment = two_scenes(f"teacher.sensors={sensors}")
    teacher = Teacher(experiment.teacher, experiment.model, GRID).eval()
    path, cameras = tmp_path / "random.safetensors", ("CAM_BACK", "CAM_FRONT")
    save_teacher(path, teacher, cameras, {})
    report = evaluate_weights(path, small_root, VERSION, device="cpu", workers=0)
    image, lidar = experiment.model.image, experiment.teacher.lidar
    frames = FrameDataset(NuScenesDataset(small_root, VERSION), "all", cameras, image, GRID, lidar=lidar)
    metric = MapIoU(GRID)
    for frame in frames:
        batch = collate([frame])
        with torch.inference_mode():
            plan = None if teacher.camera is None else teacher.camera.plan(batch.intrinsics, batch.ego_T_cam)
            metric.update(teacher(batch.images, plan, batch.points).Z.sigmoid(), batch.labels, batch.known)
    np.testing.assert_allclose(report.iou.best, metric.result().best, atol=1e-3)
    with pytest.raises(BridgeTAError, match="is a teacher, which runs by PyTorch") as error:
        evaluate_weights(path, small_root, VERSION, device="cpu", backend="openvino")
    assert error.value.exit_code == 2
