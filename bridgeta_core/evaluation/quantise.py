"""Give weights int8 graphs: see what the network's numbers are on real samples, quantise, and score the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.deploy.backends.graphs import hash_student, lift_parts, split
from bridgeta_core.deploy.backends.quantise import Inputs, quantise_graph
from bridgeta_core.deploy.backends.store import load_graphs
from bridgeta_core.deploy.weights import find_weights, load_student, save_weights
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import check_output

SAMPLES = 48
"""Sets of images that are enough for the ranges of all activations."""


def quantise_weights(
    weights: str | Path,
    root: str | Path,
    version: str,
    out: Path,
    *,
    scenes: str = "all",
    samples: int = SAMPLES,
    source: str = "nuscenes",
) -> int:
    """Write a copy of weights that also holds int8 graphs, calibrated on samples evenly spread over a dataset.

    The float32 weights stay as they are, so the file can be used in place of the other. Returns how many samples were
    used. Raises BridgeTAError as `load_student` and the dataset do, without the package onnxruntime, and for an output
    that is the input.
    """
    path = find_weights(weights)
    check_output(out, inputs=[path])
    student, info = load_student(path)
    dataset = FrameDataset(open_dataset(source, root, version), scenes, info.cameras, info.model.image, info.grid)
    if not len(dataset):
        raise BridgeTAError("has no samples to quantise with", where=root, exit_code=2)
    chosen = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, min(samples, len(dataset))).round()})
    runs = list(_run_parts(student, dataset, chosen))
    graphs = load_graphs(hash_student(student), lambda: student)
    int8 = {name: quantise_graph(graph, (run[name] for run in runs)) for name, graph in graphs.items()}
    provenance = {**info.provenance, "int8": {"root": Path(root).name, "samples": len(chosen)}}
    save_weights(out, student, info.cameras, provenance, int8)
    return len(chosen)


def _run_parts(student: Student, dataset: FrameDataset, chosen: list[int]) -> Iterator[dict[str, Inputs]]:
    """Run some samples in float32, and yield the inputs of both parts by name."""
    image, _ = split(student)
    for position in chosen:
        frame = dataset[position]
        plan = student.plan(frame.intrinsics[None], frame.ego_T_cam[None])
        images = frame.images.permute(0, 2, 3, 1).contiguous()
        with torch.inference_mode():
            depth, features = image(images, plan.ground[0])
            lifted = lift_parts(depth, features, plan)
        yield {
            "image": {"images": images.numpy(), "ground": plan.ground[0].numpy()},
            "bev": {"lifted": lifted.contiguous().numpy()},
        }
