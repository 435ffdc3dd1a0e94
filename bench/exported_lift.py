"""Time the lift of `bridgeta export`: the plan, the ONNX graph, NumPy, and the runtime's sparse product beside them.

python bench/exported_lift.py [WEIGHTS]

Processor time of one core, minimum of 40 calls: other programs may run meanwhile.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bridgeta_core.deploy.backends.graphs import lift_parts
from bridgeta_core.deploy.backends.packages import import_onnxruntime
from bridgeta_core.deploy.export.folder import describe_network
from bridgeta_core.deploy.export.lift_graph import write_lift_graph
from bridgeta_core.deploy.export.vehicle.lift_plan import lift_features, pad_lift, plan_lift
from bridgeta_core.deploy.weights import find_weights, load_student
from bridgeta_core.geometry.images import fit_images, fit_intrinsics
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_synth import nuscenes


def measure(call: Callable[[], object], count: int = 40) -> float:
    """Return the least processor time of a call in milliseconds."""
    times = []
    for _ in range(count):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main() -> None:
    torch.set_num_threads(1)
    path = find_weights(sys.argv[1] if len(sys.argv) > 1 else "tiny")
    student, info = load_student(path)
    description = describe_network(student, info, path)
    rig = Rig(tuple(Camera(c.channel, 1600, 900, c.intrinsics(1600, 900), c.ego_T_cam) for c in nuscenes.CAMERAS))
    image = info.model.image
    k = fit_intrinsics(rig, fit_images(rig, image.size, image.margin).values())
    poses = np.stack([camera.ego_T_cam for camera in rig.cameras])
    _, start, source = plan_lift(k, poses, description)

    generator, (h, w) = torch.Generator().manual_seed(0), student.camera.feature_size
    depth = torch.rand(len(rig.cameras), h, w, len(student.camera.bins), generator=generator).softmax(-1)
    features = torch.randn(len(rig.cameras), h, w, info.model.lift.channels, generator=generator)
    plan = student.plan(torch.from_numpy(k)[None], torch.from_numpy(poses)[None])
    indices = pad_lift(start, source, depth.numel())
    inputs = {"depth": depth.numpy(), "features": features.numpy(), **indices}
    with tempfile.TemporaryDirectory() as folder:
        write_lift_graph(student, Path(folder) / "lift.onnx")
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(Path(folder) / "lift.onnx", options, providers=["CPUExecutionProvider"])

    counts = np.diff(start)
    filled = counts[counts > 0]
    spread = f"{np.median(filled):.0f} in the median, {filled.max()} at most"
    print(f"{len(source):,} entries in {len(filled):,} cells: {spread}")
    print(f"indices with padding: {', '.join(f'{name} {value.shape}' for name, value in indices.items())}")
    difference = np.abs(session.run(None, inputs)[0] - lift_parts(depth, features, plan).numpy()).max()
    print(f"largest difference of the graph from the sparse product: {difference:.1e}\n")
    print("| | ms |\n|---|---|")
    for name, call in (
        ("sparse product of the runtime", lambda: lift_parts(depth, features, plan)),
        ("lift.onnx, ONNX Runtime", lambda: session.run(None, inputs)),
        ("lift_features, NumPy", lambda: lift_features(inputs["depth"], inputs["features"], start, source)),
        (
            "plan_lift and pad_lift, once per calibration",
            lambda: pad_lift(*plan_lift(k, poses, description)[1:], 10**6),
        ),
    ):
        print(f"| {name} | {measure(call):.1f} |")


if __name__ == "__main__":
    main()
