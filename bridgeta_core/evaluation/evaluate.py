"""Score weights, or any predictor, on a dataset, and the best constant prediction to compare with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from bridgeta_core.config.experiment import ImageConfig, LabelConfig
from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.frames import Batch, FrameDataset, collate
from bridgeta_core.data.loader import make_loader
from bridgeta_core.evaluation.figures import SceneCounts
from bridgeta_core.evaluation.fused import Fusion
from bridgeta_core.evaluation.metric import RANGES, IoU, describe_unscored, intersection_over_union
from bridgeta_core.evaluation.report import EvalReport
from bridgeta_core.evaluation.seen import SeenCells
from bridgeta_core.evaluation.worst import WorstSamples
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.arrays import Floats
from bridgeta_core.utils.errors import BridgeTAError, describe_lost_loader
from bridgeta_core.utils.machine import resolve_device

_PLANS = 64  # of the vehicles of a fleet

if TYPE_CHECKING:
    from bridgeta_core.deploy.runtime import Runtime


def evaluate(
    predict: Callable[[Batch], Tensor],
    dataset: FrameDataset,
    subject: str,
    *,
    scenes: str = "all",
    batch_size: int = 4,
    workers: int = 2,
    seen: SeenCells | None = None,
    fusion: Fusion | None = None,
    learned: Sequence[bool] | None = None,
    worst: WorstSamples | None = None,
) -> EvalReport:
    """Score `predict`, which returns probabilities `[B, 6, Y, X]` for a batch, over a dataset, with a progress bar.

    Classes that the network has not `learned` (None: it has all) are not scored. With `seen` also over the cells that
    the vehicle sees alone, and with `fusion` also what fuses from the predictions. `worst` is given every sample.
    Raises BridgeTAError when a loader process dies.
    """
    counts, seen_counts, fused_counts = (SceneCounts(dataset.grid) for _ in range(3))
    positions = iter(range(len(dataset)))
    loader = make_loader(dataset, workers, batch_size=batch_size, collate_fn=collate)
    start = time.monotonic()
    try:
        for batch in track(loader, description=f"Evaluating {subject}"):
            scored = batch.known.cpu() if learned is None else batch.known.cpu() & torch.tensor(learned)
            for probabilities, labels, known in zip(predict(batch), batch.labels, scored, strict=True):
                position = next(positions)
                sample = dataset.sample(position)
                counts.update(sample.scene, probabilities, labels, known)
                if seen is not None:
                    cells = torch.from_numpy(seen.find(sample))
                    seen_counts.update(sample.scene, probabilities, labels, known[:, None, None] & cells)
                if fusion is not None:
                    fused = torch.from_numpy(fusion.add(sample, probabilities.float().cpu().numpy()))
                    fused_counts.update(sample.scene, fused, labels, known)
                if worst is not None:
                    worst.add(position, probabilities.float().cpu().numpy(), labels.cpu().numpy(), known.numpy())
    except RuntimeError as error:
        if (reason := describe_lost_loader(error)) is None:
            raise
        fix = "If memory ran short, close other programs and start again"
        raise BridgeTAError(f"lost a loader process ({reason})", where=dataset.dataset.root, fix=fix) from error
    seconds = time.monotonic() - start
    figures = counts.result()
    picture = worst.draw(dataset) if worst is not None and worst.samples else None
    return EvalReport(
        subject,
        dataset.dataset.root,
        scenes,
        dataset.label_config.mode,
        len(dataset),
        seconds,
        figures.iou,
        figures,
        seen=None if seen is None else seen_counts.result(),
        fused=None if fusion is None else fused_counts.result(),
        without_lidar=0 if seen is None else seen.without_lidar,
        worst=picture,
    )


def evaluate_weights(
    weights: str | Path,
    root: str | Path,
    version: str,
    scenes: str = "all",
    *,
    labels: LabelConfig | None = None,
    source: str = "nuscenes",
    device: str = "auto",
    backend: str = "torch",
    precision: str = "float32",
    workers: int = 2,
    seen: bool = False,
    fused: bool = False,
    worst: bool = False,
) -> EvalReport:
    """Score the weights of a student or a teacher on a dataset, on the grid and with the cameras of their training.

    `device`, `backend` and `precision` are those of `Runtime`, so that what a vehicle runs can be scored; a teacher is
    computed by PyTorch at float32, and needs the LiDAR. With `seen` also over the cells that the vehicle sees alone,
    and with `fused` also what fuses along each scene; with `worst` the report has a picture of the worst samples.
    Raises BridgeTAError when the weights or the data are missing or broken, or do not fit each other, and as `Runtime`
    does.
    """
    from bridgeta_core.deploy.runtime import Runtime
    from bridgeta_core.deploy.teacher_weights import TeacherInfo, read_any_info
    from bridgeta_core.deploy.weights import find_weights

    path = find_weights(weights)
    info, subject, lidar = read_any_info(path), path.stem, None
    if isinstance(info, TeacherInfo):
        if (backend, precision) != ("torch", "float32"):
            what = "is a teacher, which runs by PyTorch at float32 alone"
            raise BridgeTAError(what, where=path, fix="Leave out --backend and --precision", exit_code=2)
        predict, lidar = predict_with_teacher(path, device), info.teacher.lidar
    else:
        runtime = Runtime(path, device, precision, backend)
        predict = predict_with(runtime)
        if (backend, precision) != ("torch", "float32"):
            subject = f"{path.stem} ({runtime.backend}, {precision})"
    data = open_dataset(source, root, version)
    dataset = FrameDataset(data, scenes, info.cameras, info.model.image, info.grid, lidar=lidar, labels=labels)
    cells = SeenCells(dataset, info.model.lift)
    return evaluate(
        predict,
        dataset,
        subject,
        scenes=scenes,
        workers=workers,
        seen=cells if seen else None,
        fusion=Fusion(info.grid, cells) if fused else None,
        learned=info.learned,
        worst=WorstSamples(info.thresholds) if worst else None,
    )


def predict_with(runtime: Runtime) -> Callable[[Batch], Tensor]:
    """Return the function from a batch of samples to probabilities `[B, 6, Y, X]` by a runtime."""

    def predict(batch: Batch) -> Tensor:
        samples = zip(batch.images, batch.intrinsics, batch.ego_T_cam, strict=True)
        results = [
            runtime.predict(images.permute(0, 2, 3, 1), runtime.plan_cameras(intrinsics, poses))
            for images, intrinsics, poses in samples
        ]
        return torch.stack(results)

    return predict


def predict_with_teacher(path: str | Path, device: str) -> Callable[[Batch], Tensor]:
    """Return the function from a batch of samples to probabilities `[B, 6, Y, X]` by a teacher's weights."""
    from bridgeta_core.deploy.teacher_weights import load_teacher
    from bridgeta_core.model.lift import PlanCache

    network, where = load_teacher(path)[0], resolve_device(device)
    network.to(where)
    plans = None if network.camera is None else PlanCache(network.camera.plan, _PLANS)

    @torch.inference_mode()
    def predict(batch: Batch) -> Tensor:
        batch = batch.to(where)
        plan = None if plans is None else plans(batch.intrinsics, batch.ego_T_cam)
        return network(batch.images, plan, batch.points).Z.float().sigmoid().cpu()

    return predict


def evaluate_constant(
    train_root: str | Path,
    train_version: str,
    root: str | Path,
    version: str,
    scenes: str = "all",
    *,
    train_scenes: str = "all",
    grid: BevGrid | None = None,
    labels: LabelConfig | None = None,
    source: str = "nuscenes",
) -> EvalReport:
    """Score the best prediction that sees no image: the mean training mask, thresholded per class.

    The threshold of each class is the best of all on the evaluated data itself, which favours this baseline; `half` is
    at a mean of 0.5.
    """
    grid = grid or BevGrid()
    start = time.monotonic()
    train, data = (
        FrameDataset(open_dataset(source, r, v), s, (), ImageConfig(), grid, labels=labels)
        for r, v, s in ((train_root, train_version, train_scenes), (root, version, scenes))
    )
    seen, frames = _count_labels(train, "Mean training mask")
    prior = np.divide(seen, frames[:, None, None], out=np.zeros(seen.shape), where=frames[:, None, None] > 0)
    positives, frames = _count_labels(data, "Labels")
    result = _compute_constant_iou(prior, positives, frames, grid)
    subject = "best constant prediction"
    mode, seconds = data.label_config.mode, time.monotonic() - start
    return EvalReport(subject, data.dataset.root, scenes, mode, len(data), seconds, result)


def _count_labels(dataset: FrameDataset, description: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the samples whose label is 1 per cell, `[6, Y, X]`, and those that know the class, `[6]`."""
    positives = np.zeros((len(CLASSES), *dataset.grid.shape), dtype=np.int64)
    frames = np.zeros(len(CLASSES), dtype=np.int64)
    for position in track(range(len(dataset)), description=description):
        masks, known = dataset.read_labels(position)
        positives[known] += masks[known]
        frames += known
    return positives, frames


def _compute_constant_iou(prior: Floats, positives: NDArray[np.int64], frames: NDArray[np.int64], grid: BevGrid) -> IoU:
    """Compute the IoU of `prior >= t` `[6, Y, X]` with labels: `positives` out of `frames` `[6]` samples per cell."""
    classes = len(CLASSES)
    best, threshold, half = (np.full(classes, np.nan) for _ in range(3))
    by_range, half_by_range = (np.full((classes, len(RANGES)), np.nan) for _ in range(2))
    distance = grid.ranges()

    def score(c: int, chosen: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
        true = positives[c][chosen & where].sum()
        false = frames[c] * (chosen & where).sum() - true
        return float(intersection_over_union(true, false, positives[c][where].sum()))

    everywhere = np.ones(grid.shape, dtype=bool)
    for c in range(classes):
        total = positives[c].sum()
        if not total:
            continue
        # Every threshold at once: cells in falling order of the prior, cut at the last of each run of equal values.
        order = np.argsort(-prior[c], axis=None, kind="stable")
        values = prior[c].flat[order]
        true = positives[c].flat[order].cumsum()
        false = frames[c] * np.arange(1, len(order) + 1) - true
        iou = intersection_over_union(true, false, total)
        iou[:-1][values[:-1] == values[1:]] = -1
        best[c], threshold[c] = iou.max(), values[iou.argmax()]
        half[c] = score(c, prior[c] >= 0.5, everywhere)
        for r, (near, far) in enumerate(RANGES):
            ring = (distance >= near) & (distance < far)
            by_range[c, r] = score(c, prior[c] >= threshold[c], ring)
            half_by_range[c, r] = score(c, prior[c] >= 0.5, ring)
    notes = describe_unscored(frames > 0, positives.any(axis=(1, 2)))
    return IoU(best, threshold, half, by_range, half_by_range, np.zeros(classes, dtype=bool), notes)
