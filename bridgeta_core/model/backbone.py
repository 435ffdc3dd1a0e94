"""Image encoder: any backbone of `transformers` with a feature pyramid on top."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.experiment import BackboneConfig
from bridgeta_core.model.decoder import convolution
from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory
from bridgeta_core.utils.files import find_user_cache

_HUB_FOLDERS = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")
_LARGEST_OPTION = 2**16
_PROBE = 128  # pixels; a multiple of every stride in use


class ImageEncoder(nn.Module):
    """Images `[B, 3, H, W]` to features `[B, config.channels, H / stride, W / stride]` of the finest chosen stage.

    The pyramid is that of Lin et al. 2017: a 1x1 convolution per stage, sums from coarse to fine, and one 3x3
    convolution at the end; or a `JoinedPyramid`. `config` is the configuration as built: after loading pretrained
    weights its options spell out their architecture, so that the network can be rebuilt without them. With `pretrained`
    off the backbone is built from the configuration alone, without asking a hub.
    """

    def __init__(self, config: BackboneConfig, pretrained: bool = True) -> None:
        super().__init__()
        if not config.stages or sorted(set(config.stages)) != list(config.stages):
            raise BridgeTAError(f"model.backbone.stages = {list(config.stages)} must ascend", exit_code=2)
        self.backbone, options = _build_backbone(config)
        if pretrained and config.pretrained:
            self.backbone, options = _load_pretrained(config, type(self.backbone))
        self.config = replace(config, options=options)
        widths: list[int] = self.backbone.channels
        self.joined = JoinedPyramid(widths, config.channels) if config.pyramid == "concatenation" else None
        if self.joined is None:
            self.lateral = nn.ModuleList(nn.Conv2d(width, config.channels, 1) for width in widths)
            self.output = convolution(config.channels, config.channels)
        self.stride = self._measure_stride()

    def _measure_stride(self) -> int:
        """Send one small image through: backbones report their strides in different ways."""
        with torch.no_grad():
            self.backbone.eval()
            maps = self.backbone(torch.zeros(1, 3, _PROBE, _PROBE)).feature_maps
            self.backbone.train()
        heights = [m.shape[-2] for m in maps]
        if any(m.ndim != 4 for m in maps) or _PROBE % heights[0] or sorted(heights, reverse=True) != heights:
            raise BridgeTAError(
                f"model.backbone: stages {list(self.config.stages)} of {self.config.architecture} give maps of "
                f"{[list(m.shape) for m in maps]}, which no pyramid can be built on",
                exit_code=2,
            )
        return int(_PROBE // heights[0])

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images `[B, 3, H, W]` into `[B, config.channels, H / stride, W / stride]`."""
        maps = self.backbone(images).feature_maps
        if self.joined is not None:
            return self.joined(maps)
        laterals = [layer(m) for layer, m in zip(self.lateral, maps, strict=True)]
        result = laterals[-1]
        for finer in reversed(laterals[:-1]):
            result = finer + functional.interpolate(result, size=finer.shape[-2:], mode="nearest")
        return self.output(result)


class JoinedPyramid(nn.Module):
    """Maps `[B, C_i, h_i, w_i]` of some stages, finest first, to `[B, channels, h_0, w_0]`.

    This is BEVFusion's pyramid of cameras: from coarse to fine, a map is enlarged bilinearly and laid beside the finer
    one, and both go through a 1x1 and a 3x3 convolution.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        if len(widths) < 2:
            raise BridgeTAError("model.backbone.pyramid = concatenation needs two stages or more", exit_code=2)
        coarser = [channels] * (len(widths) - 2) + [widths[-1]]
        self.merge = nn.ModuleList(
            nn.Sequential(convolution(width + below, channels, kernel=1), convolution(channels, channels))
            for width, below in zip(widths[:-1], coarser, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Merge all maps into the finest."""
        result = maps[-1]
        for finer, merge in zip(reversed(maps[:-1]), reversed(self.merge), strict=True):
            large = functional.interpolate(result, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            result = merge(torch.cat([finer, large], dim=1))
        return result


def _build_backbone(config: BackboneConfig) -> tuple[Any, dict[str, Any]]:
    """Build a backbone with random weights. Return it with its options."""
    options = dict(config.options)
    large = [key for key, value in options.items() if _is_large(value)]
    if large:
        raise BridgeTAError(
            f"model.backbone.options: {', '.join(large)} has numbers beyond {_LARGEST_OPTION:,}", exit_code=2
        )
    # Here, since it takes seconds, and a vehicle whose graphs are in the cache builds no backbone.
    from transformers import AutoBackbone, AutoConfig

    try:
        known = AutoConfig.for_model(config.architecture)
    except ValueError as error:
        raise BridgeTAError(
            f"model.backbone.architecture = {config.architecture!r} is not a model type of transformers",
            fix="Name one of its AutoBackbone types, e.g. swin, resnet or convnext",
            exit_code=2,
        ) from error
    unknown = [key for key in options if not hasattr(known, key)]
    if unknown:
        raise BridgeTAError(f"model.backbone.options: {config.architecture} has no {', '.join(unknown)}", exit_code=2)
    try:
        # transformers 5 has tuples as defaults, which some of its backbones (convnext) then add to lists.
        defaults = {key: getattr(known, key, None) for key in known.to_dict()}
        lists = {key: list(value) for key, value in defaults.items() if isinstance(value, tuple)}
        settings = AutoConfig.for_model(config.architecture, **{**lists, **options}, out_features=_stage_names(config))
        return AutoBackbone.from_config(settings), options
    except BridgeTAError:  # of a draft that grows beyond its file
        raise
    except Exception as error:  # of options that make no backbone the library raises whatever it stumbles over
        raise BridgeTAError(
            f"model.backbone: {config.architecture} cannot be built ({_shorten(error)})", exit_code=2
        ) from error


def _shorten(error: Exception) -> str:
    """Say in one line what a library raised. Raises the error again when no memory was left."""
    if describe_lack_of_memory(error):
        raise error
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_large(option: Any) -> bool:
    """Tell whether an option asks for more channels or layers than any backbone has."""
    if isinstance(option, (list, tuple)):
        return any(map(_is_large, option))
    return isinstance(option, (int, float)) and abs(option) > _LARGEST_OPTION


def _load_pretrained(config: BackboneConfig, kind: Any) -> tuple[Any, dict[str, Any]]:
    """Load a backbone of class `kind` with downloaded or local weights. Return it with the options that rebuild it."""
    from transformers import AutoConfig
    from transformers.utils import logging

    name, fix = config.pretrained, "Connect to the hub once, name a local folder, or set model.backbone.pretrained=null"
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers lists the classifier's unused weights at length
    # Where the user has no home the hub's own choice would be a folder ~ in the working directory.
    folder = None if any(map(os.environ.get, _HUB_FOLDERS)) else find_user_cache() / "huggingface" / "hub"
    try:
        settings = AutoConfig.from_pretrained(
            name, cache_dir=folder, **config.options, out_features=_stage_names(config)
        )
        if settings.model_type != config.architecture:
            raise BridgeTAError(
                f"model.backbone.pretrained = {name} is a {settings.model_type}, not a {config.architecture}",
                exit_code=2,
            )
        backbone, report = kind.from_pretrained(
            name, config=settings, cache_dir=folder, output_loading_info=True, use_safetensors=True
        )
    except BridgeTAError:
        raise
    except Exception as error:  # as above, and all that a hub and a file can do
        raise BridgeTAError(f"pretrained weights {name} cannot be loaded ({_shorten(error)})", fix=fix) from error
    finally:
        logging.set_verbosity(verbosity)
    # A classifier's file has no norms for the stages' outputs; they start fresh. Any other gap means another model.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("hidden_states_norms"))
    if missing:
        raise BridgeTAError(f"pretrained weights {name} lack {len(missing)} tensors, e.g. {missing[0]}", fix=fix)
    default = AutoConfig.for_model(config.architecture).to_dict()
    stored, neutral = settings.to_dict(), _NOT_ARCHITECTURE
    options = {k: v for k, v in stored.items() if k in default and v != default[k] and k not in neutral}
    # A file may hold half precision; training starts from float32.
    return backbone.float(), {**options, **config.options}


# Fields of a stored configuration that do not affect the backbone's layers, or that we set ourselves.
_NOT_ARCHITECTURE = frozenset(
    {"architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id", "out_features"}
    | {"out_indices", "stage_names", "_name_or_path", "problem_type", "num_labels"}
)


def _stage_names(config: BackboneConfig) -> list[str]:
    return [f"stage{stage}" for stage in config.stages]
