"""Frames of the synthetic world, rendered by processes of their own into a pool on a device."""

from __future__ import annotations

import argparse
import itertools
import queue
import traceback
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import Experiment, LidarConfig
from bridgeta_core.data.augment import Change
from bridgeta_core.data.frames import Batch, Frame
from bridgeta_synth import SyntheticFrames, SynthSettings
from bridgeta_synth import nuscenes as facts

FIRST_SEED = 10_000  # far from the seeds of datasets that are written to files
SCENES, DURATION, EVERY = 24, 8.0, 2  # scenes of a seed, their length in seconds, and which keyframes are rendered


def load_experiment(options: argparse.Namespace) -> Experiment:
    """Load the configuration; the teacher sees one sweep, since no others are rendered."""
    return config.load(Experiment, options.config, ["teacher.lidar.sweeps=0", *options.set])


def list_positions(worker: int, options: argparse.Namespace) -> Iterator[tuple[str, SynthSettings, list[int]]]:
    """Yield what a renderer process renders: a scene of validation towns, then scenes of ever new towns."""
    experiment = load_experiment(options)
    scale = experiment.model.image.width * experiment.model.image.margin / facts.IMAGE_SIZE[0]
    common: dict[str, Any] = {"duration": DURATION, "image_scale": scale}
    settings = SynthSettings(scenes=max(4, options.workers), seed=7, split="val", **common)
    yield "val", settings, [worker * settings.keyframes + k for k in range(0, settings.keyframes, EVERY)]
    for number in itertools.count():
        settings = SynthSettings(scenes=SCENES, seed=FIRST_SEED + worker + options.workers * number, **common)
        cities = len(facts.LOCATIONS)
        for scene in sorted(range(SCENES), key=lambda s: (s % cities, s)):  # one town after the other
            yield "train", settings, [scene * settings.keyframes + k for k in range(0, settings.keyframes, EVERY)]


def render(worker: int, options: argparse.Namespace, results: Any, stop: Any) -> None:
    """Render frames into the queue until told to stop; the body of a renderer process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    experiment, last, frames = load_experiment(options), None, None
    try:
        for kind, settings, positions in list_positions(worker, options):
            if settings != last:
                frames = SyntheticFrames(
                    settings,
                    experiment.model.image,
                    experiment.grid,
                    experiment.data.cameras,
                    device=options.renderer,
                    lidar=LidarConfig(sweeps=0, ego_radius=experiment.teacher.lidar.ego_radius),
                    open_scenes=1,
                )
                last = settings
            assert frames is not None
            for position in positions:
                frame = frames[position].to("cpu")
                values = {name: v.numpy() for name, v in vars(frame).items() if isinstance(v, Tensor)}
                while not stop.is_set():
                    try:
                        results.put((kind, frame.token, values), timeout=1)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    results.cancel_join_thread()
                    return
    except Exception:
        results.put(("error", str(worker), traceback.format_exc()))


class Pool:
    """Frames on a device, and random batches of them."""

    def __init__(self, device: str, width: int, seed: int = 0) -> None:
        self.device, self.frames = device, list[Frame]()
        self._mirrored: list[tuple[Tensor, Tensor]] = []
        self._mirror, self._width = Change(flip=True), width
        self._random = np.random.default_rng(seed)
        self._generator = torch.Generator(device).manual_seed(seed)

    def __len__(self) -> int:
        return len(self._mirrored)

    def add(self, token: str, values: dict[str, Any]) -> None:
        """Add a frame; its calibration stays on the CPU, where plans are looked up."""
        frame = Frame(token=token, **{name: torch.from_numpy(value) for name, value in values.items()})
        k = self._mirror.intrinsics(frame.intrinsics.double().numpy(), self._width)
        pose = self._mirror.ego_T_cam(frame.ego_T_cam.double().numpy())
        for name in ("images", "labels", "known", "points"):
            setattr(frame, name, getattr(frame, name).to(self.device))
        self.frames.append(frame)
        self._mirrored.append((torch.from_numpy(k).float(), torch.from_numpy(pose).float()))

    def batch(self, positions: list[int], flips: list[bool] | None = None, colour: float = 0.0) -> Batch:
        """Make the batch of some frames, mirrored where `flips` says so, and recoloured by up to `colour`."""
        chosen, flips = [self.frames[i] for i in positions], flips or [False] * len(positions)
        calibration = [
            self._mirrored[i] if f else (self.frames[i].intrinsics, self.frames[i].ego_T_cam)
            for i, f in zip(positions, flips, strict=True)
        ]
        images = torch.stack([f.images.flip(-1) if m else f.images for f, m in zip(chosen, flips, strict=True)])
        if colour:
            images = self._recolour(images, colour)
        labels = torch.stack([f.labels.flip(-2) if m else f.labels for f, m in zip(chosen, flips, strict=True)])
        side = torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0], device=self.device)
        return Batch(
            images=images,
            intrinsics=torch.stack([k for k, _ in calibration]),
            ego_T_cam=torch.stack([pose for _, pose in calibration]),
            labels=labels,
            known=torch.stack([f.known for f in chosen]),
            tokens=[f.token for f in chosen],
            points=[f.points * side if m else f.points for f, m in zip(chosen, flips, strict=True)],  # type: ignore[operator]
        )

    def draw(self, size: int, colour: float) -> Batch:
        """Draw a random batch of what is there."""
        positions = self._random.integers(0, len(self), size).tolist()
        return self.batch(positions, (self._random.random(size) < 0.5).tolist(), colour)

    def _recolour(self, images: Tensor, colour: float) -> Tensor:
        """Change brightness and contrast of each sample."""
        gains = 1 + colour * (
            2 * torch.rand(2, len(images), 1, 1, 1, 1, device=self.device, generator=self._generator) - 1
        )
        values = images.float()
        mean = values.mean((1, 2, 3, 4), keepdim=True)
        return (((values - mean) * gains[1] + mean) * gains[0]).round().clamp(0, 255).to(torch.uint8)


def collect(results: Any, pools: dict[str, Pool], stop: Any, errors: list[str]) -> None:
    """Move frames from the queue to their pools; the body of a thread."""
    while not stop.is_set():
        try:
            kind, token, values = results.get(timeout=1)
        except queue.Empty:
            continue
        if kind == "error":
            errors.append(f"renderer {token}:\n{values}")
        else:
            pools[kind].add(token, values)
