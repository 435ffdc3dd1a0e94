"""The camera-only network equals the original, module by module.

`camera_only.npz` was recorded with the original's own Python modules in float64 (those of mit-han-lab/bevfusion and of
mmdetection 2.20, with mmcv's ConvModule, FFN and norms in plain PyTorch, and its pooling as an exact sum), on weights
and images of `seeded`, with the LiDAR at (0.94, 0, 1.84) m, x to the right. It has the names and shapes of the weights.
What lies within 1e-4 cells of a border is left out on both sides (`near`): there float32 decides where it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from released import make_tensors, read_golden, read_json, save_checkpoint
from seeded import cameras, chosen, images
from torch import Tensor

from bridgeta_core.bevfusion.importing import import_checkpoint
from bridgeta_core.deploy.weights import load_student
from bridgeta_core.model.lift import lift
from bridgeta_core.model.student import Student

BEV = ("pooled", "block0", "block2", "decoded", "logits", "probabilities")


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    return read_golden("camera_only")


@pytest.fixture(scope="module")
def imported(golden: dict[str, NDArray[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    checkpoint = save_checkpoint(folder / "camera-only-seg.pth", make_tensors(read_json(golden, "names")))
    import_checkpoint(checkpoint, folder / "student.safetensors", "student")
    return folder / "student.safetensors"


@pytest.fixture(scope="module")
def student(imported: Path) -> Student:
    return load_student(imported)[0]


@pytest.fixture(scope="module")
def taps(student: Student, golden: dict[str, NDArray[Any]]) -> Iterator[dict[str, Tensor]]:
    """What the imported network's modules compute, by the names in the golden data."""
    result: dict[str, Tensor] = {}

    def record(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda _, __, output: result.update({name: output}))

    encoder, decoder = student.camera.encoder, student.decoder
    record("neck", encoder)
    record("block0", decoder.stages[0])
    record("block2", decoder.stages[2])
    encoder.backbone.register_forward_hook(
        lambda _, __, output: result.update({f"stage{i + 2}": x for i, x in enumerate(output.feature_maps)})
    )
    k, pose = (torch.from_numpy(x)[None] for x in cameras())
    plan = student.plan(k, pose)
    with torch.no_grad():
        depth, features = student.camera.encode(torch.from_numpy(images()).permute(0, 3, 1, 2)[None], plan.ground)
        depth.view(-1)[torch.from_numpy(golden["near"]).long()] = 0
        result["pooled"] = lift(depth, features, plan)
        f = student.neck(student.camera.downsample(result["pooled"]))
        result["camera"] = f.relu()
        _, result["decoded"], result["logits"] = student.decode(f)
    result["probabilities"] = result["logits"].sigmoid()
    return result


@pytest.mark.parametrize("name", ["stage2", "stage3", "stage4", "neck", "camera", *BEV])
def test_every_module_computes_what_the_original_does(
    name: str, taps: dict[str, Tensor], golden: dict[str, NDArray[Any]]
) -> None:
    found = taps[name]
    if name in ("camera", *BEV):  # [x to the right, y ahead] there, [y to the left, x ahead] here
        found = found.flip(2)
    assert list(found.shape) == read_json(golden, "shapes")[name]
    count = 12_000 if name == "probabilities" else 1_500
    values = found.contiguous().view(-1)[torch.from_numpy(chosen(name, found.numel(), count))].numpy()
    np.testing.assert_allclose(values, golden[name], rtol=0, atol=1e-4 * np.abs(golden[name]).max())
