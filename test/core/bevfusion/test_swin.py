"""Swin backbones of other repositories, as those of transformers: `test_camera` compares the outputs of Swin-T."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from released import make_swin, save_checkpoint
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from bridgeta_core.bevfusion.importing import import_checkpoint
from bridgeta_core.cli.commands import app
from bridgeta_core.config.experiment import BackboneConfig
from bridgeta_core.model.backbone import ImageEncoder
from bridgeta_core.utils.errors import BridgeTAError

_BLOCK = {"attn": "attn.w_msa", "mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}


def to_mmdet(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename Microsoft's tensors as mmdetection does, and count the inputs of a merge as nn.Unfold does."""
    result = {}
    for name, value in tensors.items():
        for old, new in {"layers.": "stages.", "patch_embed.proj.": "patch_embed.projection."}.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        for old, new in _BLOCK.items():
            name = name.replace(f".{old}.", f".{new}.") if ".blocks." in name else name
        if ".downsample." in name:
            original, value, channels = value, value.clone(), value.shape[-1] // 4
            for c, row, column in np.ndindex(channels, 2, 2):
                value[..., 4 * c + 2 * row + column] = original[..., (2 * column + row) * channels + c]
        result[name] = value
    return result


def read(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_both_layouts_are_one_backbone(tmp_path: Path) -> None:
    tensors = make_swin()
    for name, content in (("microsoft", tensors), ("mmdet", to_mmdet(tensors))):
        import_checkpoint(save_checkpoint(tmp_path / f"{name}.pth", content), tmp_path / name, "backbone")
    found, expected = read(tmp_path / "mmdet"), read(tmp_path / "microsoft")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("mmdet", "prefix"), [(False, ""), (True, "backbone.")])
def test_an_imported_backbone_is_what_training_starts_from(tmp_path: Path, mmdet: bool, prefix: str) -> None:
    tensors = make_swin(prefix, mmdet)
    others = {f"{prefix and 'roi_'}head.weight": torch.ones(3)}  # of a detector, or a classifier
    path = save_checkpoint(tmp_path / "swin.pth", tensors | others)
    import_checkpoint(path, tmp_path / "folder", "backbone")
    encoder = ImageEncoder(BackboneConfig(pretrained=str(tmp_path / "folder"), channels=16))
    state = encoder.backbone.state_dict()
    attention = f"{prefix}{'stages' if mmdet else 'layers'}.1.blocks.0.{'attn.w_msa' if mmdet else 'attn'}.qkv.weight"
    keys = tensors[attention][32:64]  # called attention.self.key or attention.k_proj, as transformers will have it
    assert any(torch.equal(value, keys) for value in state.values() if value.shape == keys.shape)
    if mmdet:
        assert torch.equal(state["hidden_states_norms.stage3.weight"], tensors[f"{prefix}norm2.weight"])
    assert encoder.config.options["embed_dim"] == 16


def test_the_command_says_which_setting_takes_a_backbone(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "swin.pth", make_swin())
    done = CliRunner().invoke(app, ["import", str(path), str(tmp_path / "folder"), "--as", "backbone"])
    assert done.exit_code == 0
    assert f"model.backbone.pretrained={tmp_path / 'folder'}" in done.output


def test_an_earlier_import_is_replaced_only_on_request(tmp_path: Path) -> None:
    path, out = save_checkpoint(tmp_path / "swin.pth", make_swin()), tmp_path / "folder"
    import_checkpoint(path, out, "backbone")
    with pytest.raises(BridgeTAError, match="already exists"):
        import_checkpoint(path, out, "backbone")
    import_checkpoint(path, out, "backbone", overwrite=True)
    (out / "model.safetensors").unlink()
    with pytest.raises(BridgeTAError, match="something else"):
        import_checkpoint(path, out, "backbone", overwrite=True)


def test_the_same_backbone_has_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "swin.pth", make_swin())
    files = []
    for seed in range(2):
        out = tmp_path / f"folder{seed}"
        command = [sys.executable, "-m", "bridgeta_core", "import", path, out, "--as", "backbone"]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, check=True, capture_output=True)
        files.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert files[0] == files[1]


def test_what_a_backbone_lacks_is_named(tmp_path: Path) -> None:
    tensors = make_swin()
    del tensors["layers.2.blocks.0.mlp.fc1.bias"]
    with pytest.raises(BridgeTAError, match=r"layers.2.blocks.0.mlp.fc1.bias is missing"):
        import_checkpoint(save_checkpoint(tmp_path / "swin.pth", tensors), tmp_path / "out", "backbone")
    no_stage = {name: value for name, value in make_swin().items() if not name.startswith("layers.3")}
    with pytest.raises(BridgeTAError, match="has no stage 4 of a Swin backbone"):
        import_checkpoint(save_checkpoint(tmp_path / "swin.pth", no_stage), tmp_path / "out", "backbone")
