"""Write a synthetic world as a nuScenes v1.0 root: tables, maps, images and sweeps."""

from __future__ import annotations

import datetime
import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgeta_core.classes import CLASS_NAMES
from bridgeta_core.errors import BridgeTAError
from bridgeta_core.files import replace_when_done
from bridgeta_core.geometry import quaternion, rigid
from bridgeta_core.synth import nuscenes_facts as facts
from bridgeta_core.synth.mapfile import class_shares, write_maps
from bridgeta_core.synth.render import SceneRenderer
from bridgeta_core.synth.scene import Scene, build_scene
from bridgeta_core.synth.scene_files import SWEEPS, SceneFiles, log_name, log_start_us
from bridgeta_core.synth.settings import SynthSettings
from bridgeta_core.synth.tokens import token
from bridgeta_core.synth.town import Town, build_town

DATA_SHEET = "synth.json"
_TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)


def write_dataset(
    out: Path,
    settings: SynthSettings,
    device: str | torch.device = "cpu",
    progress: bool = True,
    overwrite: bool = False,
) -> None:
    """Write the root `out`, whole or not at all; `overwrite` replaces an earlier root that this function wrote.

    Raises BridgeTAError when `out` holds something else, the device is not there, or the disk is full.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        ours = (out / DATA_SHEET).is_file()
        if not ours:
            fix = "Name an empty or new folder"
            raise BridgeTAError("exists and was not written by synth", where=out, fix=fix, exit_code=2)
        if not overwrite:
            fix = "Name another folder, or replace it with --overwrite"
            raise BridgeTAError("holds an earlier synthetic dataset", where=out, fix=fix, exit_code=2)
    try:
        target = torch.device(device)
        torch.zeros(1, device=target)
    except (RuntimeError, AssertionError) as error:
        raise BridgeTAError(f"device {device} cannot be used ({error})", fix="Try cpu", exit_code=2) from error
    threads = torch.get_num_threads()
    # One thread per picture and as many pictures at a time as there are cores: faster than sharing each picture
    # out, and results do not depend on how work is shared.
    torch.set_num_threads(1)
    try:
        with replace_when_done(out) as root, ThreadPoolExecutor(_workers()) as pool:
            try:
                Root(root, settings, target, pool).write(progress)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)


def _workers() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


class Root:
    """A root in the making: its tables, towns and workers."""

    def __init__(self, root: Path, settings: SynthSettings, device: torch.device, pool: ThreadPoolExecutor) -> None:
        self.root, self.settings, self.device, self.pool = root, settings, device, pool
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
        self.towns: dict[int, Town] = {}
        self.used = min(len(facts.LOCATIONS), settings.scenes)
        self.places: dict[int, list[NDArray[np.float64]]] = defaultdict(list)

    def _token(self, *names: object) -> str:
        return token(self.settings.seed, *names)

    def write(self, progress: bool) -> None:
        """Write everything, scene by scene; the next scene is prepared while one is rendered."""
        settings = self.settings
        (self.root / settings.version).mkdir(parents=True)
        channels = [c.channel for c in facts.CAMERAS] + ([facts.LIDAR_CHANNEL] if settings.lidar else [])
        for channel in channels:
            for folder in ("samples",) if settings.keyframes_only else ("samples", "sweeps"):
                (self.root / folder / channel).mkdir(parents=True)
        self._vocabularies(channels)
        columns = (TextColumn("synth"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
        with Progress(*columns, disable=not progress, transient=False) as bar:
            task = bar.add_task("", total=settings.scenes * self._files_per_scene())
            prepared = self.pool.submit(self._prepare, 0)
            for index in range(settings.scenes):
                scene, renderer = prepared.result()
                if index + 1 < settings.scenes:
                    prepared = self.pool.submit(self._prepare, index + 1)
                SceneFiles(self, scene, renderer, lambda: bar.advance(task)).write()
        self._finish()

    def _files_per_scene(self) -> int:
        intervals = self.settings.keyframes - 1
        per_camera = intervals * (1 if self.settings.keyframes_only else facts.CAMERA_FRAMES_PER_KEYFRAME) + 1
        per_lidar = intervals * (1 if self.settings.keyframes_only else SWEEPS) + 1
        return len(facts.CAMERAS) * per_camera + (per_lidar if self.settings.lidar else 0)

    def _prepare(self, index: int) -> tuple[Scene, SceneRenderer]:
        settings, city = self.settings, index % self.used
        if city not in self.towns:
            location, keep_right = facts.LOCATIONS[city]
            self.towns[city] = build_town(settings.seed, city, location, keep_right)
            write_maps(self.root, self.towns[city], settings.seed)
        scene = build_scene(self.towns[city], settings.seed, index, settings.duration)
        return scene, SceneRenderer(scene, settings.seed, *settings.image_size, self.device)

    def _vocabularies(self, channels: list[str]) -> None:
        tables = self.tables
        tables["category"] = [
            {"token": self._token("category", name), "name": name, "description": text}
            for name, text in facts.CATEGORIES
        ]
        tables["attribute"] = [
            {"token": self._token("attribute", name), "name": name, "description": text}
            for name, text in facts.ATTRIBUTES
        ]
        tables["visibility"] = [
            {"token": key, "level": level, "description": text} for key, level, text, _ in facts.VISIBILITIES
        ]
        tables["sensor"] = [
            {
                "token": self._token("sensor", channel),
                "channel": channel,
                "modality": "lidar" if channel == facts.LIDAR_CHANNEL else "camera",
            }
            for channel in channels
        ]
        for city in range(self.used):
            location = facts.LOCATIONS[city][0]
            captured = datetime.datetime.fromtimestamp(log_start_us(city) / 1e6, tz=datetime.timezone.utc)
            tables["log"].append(
                {
                    "token": self._token("log", location),
                    "logfile": log_name(city),
                    "vehicle": "n000",
                    "date_captured": captured.strftime("%Y-%m-%d"),
                    "location": location,
                }
            )
            prior = token(self.settings.seed, "map", location)
            tables["map"].append(
                {
                    "category": "semantic_prior",
                    "token": prior,
                    "filename": f"maps/{prior}.png",
                    "log_tokens": [self._token("log", location)],
                }
            )
            for camera in facts.CAMERAS:
                tables["calibrated_sensor"].append(
                    {
                        "token": self._token("calibration", location, camera.channel),
                        "sensor_token": self._token("sensor", camera.channel),
                        "translation": list(camera.translation),
                        "rotation": quaternion(camera.ego_T_cam).tolist(),
                        "camera_intrinsic": camera.intrinsics(*self.settings.image_size).tolist(),
                    }
                )
            if self.settings.lidar:
                lidar = rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)
                tables["calibrated_sensor"].append(
                    {
                        "token": self._token("calibration", location, facts.LIDAR_CHANNEL),
                        "sensor_token": self._token("sensor", facts.LIDAR_CHANNEL),
                        "translation": list(facts.LIDAR_TRANSLATION),
                        "rotation": quaternion(lidar).tolist(),
                        "camera_intrinsic": [],
                    }
                )

    def _finish(self) -> None:
        folder = self.root / self.settings.version
        for name, records in self.tables.items():
            (folder / f"{name}.json").write_text(json.dumps(records, indent=0))
        shares = np.concatenate(
            [class_shares(self.towns[c], np.concatenate(p)) for c, p in sorted(self.places.items())]
        )
        sheet = {
            "generator": "bridgeta synth",
            "settings": asdict(self.settings),
            "seed": self.settings.seed,
            "version": self.settings.version,
            "locations": [facts.LOCATIONS[city][0] for city in range(self.used)],
            "keyframes": len(shares),
            "annotations": len(self.tables["sample_annotation"]),
            "cell_share_within_50_m": dict(zip(CLASS_NAMES, shares.mean(axis=0).round(4).tolist(), strict=True)),
            "keyframe_share_with_class": dict(
                zip(CLASS_NAMES, (shares > 0).mean(axis=0).round(4).tolist(), strict=True)
            ),
        }
        (self.root / DATA_SHEET).write_text(json.dumps(sheet, indent=2) + "\n")
