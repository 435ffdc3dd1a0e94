"""Swin backbones of mmdetection and of Microsoft's own repository, as those of transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig
from transformers.utils import logging

from bridgeta_core.bevfusion.checkpoint import Checkpoint
from bridgeta_core.bevfusion.tensors import Entry, keep, take
from bridgeta_core.deploy.weights import serialise_tensors
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import replace_when_done

# What a block's tensors are called: in transformers 4, whose names version 5 takes as well, in mmdetection, and in
# Microsoft's repository.
_BLOCK = (
    ("layernorm_before", "norm1", "norm1"),
    ("attention.output.dense", "attn.w_msa.proj", "attn.proj"),
    ("layernorm_after", "norm2", "norm2"),
    ("intermediate.dense", "ffn.layers.0.0", "mlp.fc1"),
    ("output.dense", "ffn.layers.1", "mlp.fc2"),
)
_INDEX = re.compile(r"\.relative_position_index$|\.attn_mask$")  # follow from the sizes


def list_swin_entries(config: Any, prefix: str, mmdet: bool, norms: Mapping[str, str]) -> list[Entry]:
    """List the entries of a backbone with the transformers configuration `config`, whose names begin with `prefix`.

    `norms` maps the stages whose outputs are normed, such as "stage2", to their norms' names in the checkpoint.
    """
    entries: list[Entry] = []

    def add(target: str, source: str, *shape: int, change: Callable[[Tensor], Tensor] = keep) -> None:
        entries.append(Entry(target, f"{prefix}{source}", shape, change))

    def add_pair(target: str, source: str, *shape: int) -> None:
        add(f"{target}.weight", f"{source}.weight", *shape)
        add(f"{target}.bias", f"{source}.bias", shape[0])

    width, patch = config.embed_dim, config.patch_size
    projection = "projection" if mmdet else "proj"
    add_pair("embeddings.patch_embeddings.projection", f"patch_embed.{projection}", width, 3, patch, patch)
    add_pair("embeddings.norm", "patch_embed.norm", width)
    for stage, (depth, heads) in enumerate(zip(config.depths, config.num_heads, strict=True)):
        here, there = f"encoder.layers.{stage}", f"{'stages' if mmdet else 'layers'}.{stage}"
        hidden = int(config.mlp_ratio * width)
        shapes = {"norm": (width,), "output.dense": (width, hidden), "intermediate.dense": (hidden, width)}
        shapes |= {"layernorm_before": (width,), "layernorm_after": (width,), "attention.output.dense": (width, width)}
        for block in range(depth):
            ours, theirs = f"{here}.blocks.{block}", f"{there}.blocks.{block}"
            for target, of_mmdet, of_microsoft in _BLOCK:
                add_pair(f"{ours}.{target}", f"{theirs}.{of_mmdet if mmdet else of_microsoft}", *shapes[target])
            attention = f"{theirs}.attn.w_msa" if mmdet else f"{theirs}.attn"
            for i, part in enumerate(("query", "key", "value")):
                third = partial(_take_third, i)
                for kind, shape in (("weight", (3 * width, width)), ("bias", (3 * width,))):
                    add(f"{ours}.attention.self.{part}.{kind}", f"{attention}.qkv.{kind}", *shape, change=third)
            table = "relative_position_bias_table"
            add(f"{ours}.attention.self.{table}", f"{attention}.{table}", (2 * config.window_size - 1) ** 2, heads)
        if stage + 1 < len(config.depths):
            order = _order_as_slices if mmdet else keep
            for name, shape in (
                ("norm.weight", (4 * width,)),
                ("norm.bias", (4 * width,)),
                ("reduction.weight", (2 * width, 4 * width)),
            ):
                add(f"{here}.downsample.{name}", f"{there}.downsample.{name}", *shape, change=order)
            width *= 2
    for stage_name, source in norms.items():
        add_pair(f"hidden_states_norms.{stage_name}", source, config.embed_dim * 2 ** (int(stage_name[5:]) - 1))
    return entries


def is_derived(name: str) -> bool:
    """Tell whether a tensor of a Swin checkpoint follows from the sizes alone."""
    return _INDEX.search(name) is not None


def load_swin(backbone: Any, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors by the names of `list_swin_entries` into a Swin backbone of any version of transformers."""
    with _hide_progress():
        loaded, report = type(backbone).from_pretrained(
            None, config=backbone.config, state_dict=dict(tensors), output_loading_info=True
        )
    missing = [name for name in report["missing_keys"] if not is_derived(name)]
    if missing or report["unexpected_keys"]:
        raise BridgeTAError(f"this version of transformers does not take a Swin backbone's weights, e.g. {missing[:1]}")
    backbone.load_state_dict(loaded.state_dict())


def import_backbone(checkpoint: Checkpoint, out: Path) -> None:
    """Write a Swin backbone as a folder in the format of transformers, which `model.backbone.pretrained` takes.

    Takes Swin-T, -S, -B and -L, alone, with a classifier, or in a detector of mmdetection; of the latter two what is
    no backbone is left out. Raises BridgeTAError as `take` does, and for another backbone.
    """
    names = checkpoint.tensors.keys()
    prefix = "backbone." if any(name.startswith("backbone.") for name in names) else ""
    mmdet = any(name.startswith(f"{prefix}stages.") for name in names)
    options = _measure(checkpoint, prefix, mmdet)
    norms = {f"stage{i + 1}": f"norm{i}" for i in range(4) if f"{prefix}norm{i}.weight" in names}
    config = AutoConfig.for_model("swin", **options, out_features=list(norms) or ["stage2", "stage3", "stage4"])
    others = {name for name in names if is_derived(name) or not name.startswith(prefix) or _is_classifier(name)}
    tensors = take(checkpoint, list_swin_entries(config, prefix, mmdet, norms), others)
    with replace_when_done(out, folder=True, inputs=[checkpoint.path], sign="model.safetensors") as folder:
        folder.mkdir()
        metadata = {"format": "pt", "origin": json.dumps(_describe(checkpoint))}
        (folder / "model.safetensors").write_bytes(serialise_tensors(tensors, metadata))
        config.architectures = ["SwinBackbone"]
        config.save_pretrained(folder)


def _describe(checkpoint: Checkpoint) -> dict[str, str]:
    return {"imported_from": checkpoint.path.name, "sha256": checkpoint.sha256}


def _is_classifier(name: str) -> bool:
    return name.startswith(("head.", "norm."))


def _measure(checkpoint: Checkpoint, prefix: str, mmdet: bool) -> dict[str, Any]:
    """Read the sizes of a Swin backbone off its tensors."""
    stages, attention = ("stages", "attn.w_msa") if mmdet else ("layers", "attn")
    depths, heads, window = [], [], 0
    for stage in range(4):
        pattern = re.compile(rf"{re.escape(prefix)}{stages}\.{stage}\.blocks\.(\d+)\.{re.escape(attention)}\.relative_")
        blocks = {int(found[1]) for name in checkpoint.tensors if (found := pattern.match(name))}
        table = checkpoint.tensors.get(
            f"{prefix}{stages}.{stage}.blocks.0.{attention}.relative_position_bias_table", torch.zeros(0)
        )
        if not blocks or table.ndim != 2:
            raise BridgeTAError(f"has no stage {stage + 1} of a Swin backbone", where=checkpoint.path)
        depths.append(max(blocks) + 1)
        heads.append(table.shape[1])
        window = (round(table.shape[0] ** 0.5) + 1) // 2
    name = f"{prefix}patch_embed.{'projection' if mmdet else 'proj'}.weight"
    patches = checkpoint.tensors.get(name)
    if patches is None or patches.ndim != 4:
        raise BridgeTAError(f"lacks {name}", where=checkpoint.path)
    return {"embed_dim": patches.shape[0], "depths": depths, "num_heads": heads, "window_size": window}


def _take_third(part: int, tensor: Tensor) -> Tensor:
    """Take the queries, keys or values (0, 1, 2) of a projection to all three."""
    return tensor.chunk(3)[part]


def _order_as_slices(tensor: Tensor) -> Tensor:
    """Reorder the last axis from the four neighbours of each channel to all channels of each neighbour.

    mmdetection merges patches by nn.Unfold, which counts channels first and then neighbours by rows. The original
    counts neighbours first, and those by columns: (0, 0), (1, 0), (0, 1), (1, 1).
    """
    *rest, size = tensor.shape
    return tensor.reshape(*rest, size // 4, 2, 2).movedim(-3, -1).transpose(-3, -2).reshape(*rest, size)


@contextmanager
def _hide_progress() -> Iterator[None]:
    """Hide the bars and advice of transformers."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
