"""Write a synthetic world as a nuScenes v1.0 root: tables, maps, images and sweeps."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgeta_core.classes import CLASS_NAMES
from bridgeta_core.errors import BridgeTAError
from bridgeta_core.files import replace_when_done
from bridgeta_core.geometry import quaternion, rigid, transform
from bridgeta_core.synth import nuscenes_facts as facts
from bridgeta_core.synth.mapfile import class_shares, write_maps
from bridgeta_core.synth.render import SceneRenderer
from bridgeta_core.synth.scene import Scene, build_scene
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
# Microseconds since 1970 of the first log: 14 November 2023.
_EPOCH_US = 1_700_000_000_000_000
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class SynthSettings:
    """What to synthesise.

    scenes: number of scenes, 1 or more; they are spread over up to four towns.
    seed: 0 or more; equal settings give equal bytes on one machine.
    duration: seconds from the first to the last keyframe of a scene, 0 to 60; keyframes are 0.5 s apart.
    version: name of the folder with the tables, such as v1.0-trainval or v1.0-mini.
    keyframes_only: leave out the sweeps between keyframes (cameras 12 Hz, LiDAR 20 Hz).
    image_scale: size of the images relative to 1600x900, above 0.02 and at most 1; intrinsics are scaled alike.
    lidar: write LIDAR_TOP; without it the devkit's LiDAR functions do not work.
    """

    scenes: int
    seed: int = 0
    duration: float = 5.0
    version: str = "v1.0-trainval"
    keyframes_only: bool = False
    image_scale: float = 1.0
    lidar: bool = True

    def __post_init__(self) -> None:
        problem = None
        if self.scenes < 1 or self.scenes > 9999:
            problem = f"scenes is {self.scenes}, it must be 1 to 9999"
        elif self.seed < 0:
            problem = f"seed is {self.seed}, it must be 0 or more"
        elif not 0 <= self.duration <= 60:
            problem = f"duration is {self.duration} s, it must be 0 to 60"
        elif not 0.02 < self.image_scale <= 1:
            problem = f"image_scale is {self.image_scale}, it must be above 0.02 and at most 1"
        elif not re.fullmatch(r"v1\.0-[a-z0-9]+", self.version):
            problem = f"version is '{self.version}', it must look like v1.0-trainval"
        if problem:
            raise BridgeTAError(f"cannot synthesise: {problem}", exit_code=2)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the images."""
        return tuple(max(8, round(side * self.image_scale)) for side in facts.IMAGE_SIZE)  # type: ignore[return-value]

    @property
    def keyframes(self) -> int:
        """Keyframes per scene."""
        return math.floor(self.duration * 2 + 1e-9) + 1


def write_dataset(
    out: Path, settings: SynthSettings, device: str | torch.device = "cpu", progress: bool = True
) -> None:
    """Write the root `out`, whole or not at all; an earlier root written by this function is replaced.

    Raises BridgeTAError when `out` holds something else, the device is not there, or the disk is full.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and ((out / DATA_SHEET).is_file() or not any(out.iterdir()))):
        raise BridgeTAError(
            "exists and was not written by synth", where=out, fix="Name an empty or new folder", exit_code=2
        )
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
                _Writer(root, settings, target, pool).write(progress)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)


def _workers() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


class _Writer:
    def __init__(self, root: Path, settings: SynthSettings, device: torch.device, pool: ThreadPoolExecutor) -> None:
        self.root, self.settings, self.device, self.pool = root, settings, device, pool
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
        self.towns: dict[int, Town] = {}
        self.used = min(len(facts.LOCATIONS), settings.scenes)
        self.places: dict[int, list[NDArray[np.float64]]] = defaultdict(list)

    def _token(self, *names: object) -> str:
        return token(self.settings.seed, *names)

    def write(self, progress: bool) -> None:
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
                _SceneWriter(self, scene, renderer, lambda: bar.advance(task)).write()
        self._finish()

    def _files_per_scene(self) -> int:
        intervals = self.settings.keyframes - 1
        per_camera = intervals * (1 if self.settings.keyframes_only else facts.CAMERA_FRAMES_PER_KEYFRAME) + 1
        per_lidar = intervals * (1 if self.settings.keyframes_only else _SWEEPS) + 1
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
            {"token": self._token("category", name), "name": name, "description": text} for name, text in facts.CATEGORIES
        ]
        tables["attribute"] = [
            {"token": self._token("attribute", name), "name": name, "description": text} for name, text in facts.ATTRIBUTES
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
        shares = np.concatenate([class_shares(self.towns[c], np.concatenate(p)) for c, p in sorted(self.places.items())])
        sheet = {
            "generator": "bridgeta synth",
            "settings": asdict(self.settings),
            "seed": self.settings.seed,
            "version": self.settings.version,
            "locations": [facts.LOCATIONS[city][0] for city in range(self.used)],
            "keyframes": len(shares),
            "annotations": len(self.tables["sample_annotation"]),
            "cell_share_within_50_m": dict(zip(CLASS_NAMES, shares.mean(axis=0).round(4).tolist(), strict=True)),
            "keyframe_share_with_class": dict(zip(CLASS_NAMES, (shares > 0).mean(axis=0).round(4).tolist(), strict=True)),
        }
        (self.root / DATA_SHEET).write_text(json.dumps(sheet, indent=2) + "\n")


_SWEEPS = facts.KEYFRAME_PERIOD_US // facts.LIDAR_PERIOD_US


def log_start_us(city: int) -> int:
    """Stamp of the first keyframe in a city's log: one log a day."""
    return _EPOCH_US + city * 86_400_000_000


def log_name(city: int) -> str:
    """Name of a city's log file, as in the names of sensor files."""
    start = datetime.datetime.fromtimestamp(log_start_us(city) / 1e6, tz=datetime.timezone.utc)
    return "n000-" + start.strftime("%Y-%m-%d-%H-%M-%S") + "+0000"


class _SceneWriter:
    """Writes one scene's files and appends its records to the tables."""

    def __init__(self, writer: _Writer, scene: Scene, renderer: SceneRenderer, advance: Callable[[], None]) -> None:
        self.writer, self.scene, self.renderer, self.advance = writer, scene, renderer, advance
        self.settings, self.tables = writer.settings, writer.tables
        self.name = f"scene-{scene.index + 1:04d}"
        self.city = scene.index % writer.used
        turn = scene.index // writer.used
        self.start_us = log_start_us(self.city) + turn * 90_000_000

    def _token(self, *names: object) -> str:
        return token(self.settings.seed, self.name, *names)

    def write(self) -> None:
        keyframes = self.settings.keyframes
        camera_views: dict[int, list[Future[tuple[NDArray[np.int64], NDArray[np.int64]]]]] = defaultdict(list)
        lidar_counts: dict[int, Future[NDArray[np.int64]]] = {}
        rest: list[Future[Any]] = []
        for camera in facts.CAMERAS:
            per_keyframe = facts.CAMERA_FRAMES_PER_KEYFRAME
            for frame, path, stamp in self._sensor(camera.channel, camera.offset_us, per_keyframe, "jpg"):
                job = self.writer.pool.submit(self._image, camera, stamp, path)
                if frame % per_keyframe:
                    rest.append(job)
                else:
                    camera_views[frame // per_keyframe].append(job)
        if self.settings.lidar:
            for frame, path, stamp in self._sensor(facts.LIDAR_CHANNEL, 0, _SWEEPS, "pcd"):
                job = self.writer.pool.submit(self._sweep, stamp, path)
                if frame % _SWEEPS:
                    rest.append(job)
                else:
                    lidar_counts[frame // _SWEEPS] = job
        try:
            none = np.zeros(len(self.scene.actors), dtype=np.int64)
            seen = []
            for k in range(keyframes):
                views = [job.result() for job in camera_views[k]]
                visible, whole = sum(v[0] for v in views) + none, sum(v[1] for v in views) + none
                points = lidar_counts[k].result() if k in lidar_counts else none
                seen.append((visible, whole, points))
            for job in rest:
                job.result()
        except BaseException:
            for job in [*rest, *lidar_counts.values(), *(j for jobs in camera_views.values() for j in jobs)]:
                job.cancel()
            raise
        self._samples()
        self._annotations(seen)
        x, y, _ = self.scene.ego.at(np.arange(keyframes) * 0.5)
        self.writer.places[self.city].append(np.stack((x, y), axis=1))

    def _seconds(self, stamp: int) -> float:
        return (stamp - self.start_us) / 1e6

    def _sensor(self, channel: str, offset_us: int, per_keyframe: int, form: str) -> list[tuple[int, Path, int]]:
        """Append one sensor's records; returns (frame, path, stamp) of its files."""
        settings = self.settings
        step = per_keyframe if settings.keyframes_only else 1
        frames = list(range(0, (settings.keyframes - 1) * per_keyframe + 1, step))
        width, height = settings.image_size if form == "jpg" else (0, 0)
        jobs = []
        tokens = [self._token("data", channel, frame) for frame in frames]
        for position, frame in enumerate(frames):
            stamp = self.start_us + offset_us + round(frame * facts.KEYFRAME_PERIOD_US / per_keyframe)
            is_key = frame % per_keyframe == 0
            folder = "samples" if is_key else "sweeps"
            suffix = "jpg" if form == "jpg" else "pcd.bin"
            filename = f"{folder}/{channel}/{log_name(self.city)}__{channel}__{stamp}.{suffix}"
            pose = self.scene.ego_pose(self._seconds(stamp))
            self.tables["ego_pose"].append(
                {
                    "token": tokens[position],
                    "timestamp": stamp,
                    "rotation": quaternion(pose).tolist(),
                    "translation": pose[:3, 3].tolist(),
                }
            )
            self.tables["sample_data"].append(
                {
                    "token": tokens[position],
                    # A sweep belongs to the keyframe that follows it.
                    "sample_token": self._token("sample", math.ceil(frame / per_keyframe)),
                    "ego_pose_token": tokens[position],
                    "calibrated_sensor_token": token(
                        settings.seed, "calibration", facts.LOCATIONS[self.city][0], channel
                    ),
                    "timestamp": stamp,
                    "fileformat": form,
                    "is_key_frame": is_key,
                    "height": height,
                    "width": width,
                    "filename": filename,
                    "prev": tokens[position - 1] if position else "",
                    "next": tokens[position + 1] if position + 1 < len(tokens) else "",
                }
            )
            jobs.append((frame, self.writer.root / filename, stamp))
        return jobs

    def _image(
        self, camera: facts.CameraFacts, stamp: int, path: Path
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        view = self.renderer.camera(camera, self._seconds(stamp))
        bgr = cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
        assert done
        path.write_bytes(data.tobytes())
        self.advance()
        return view.visible, view.unoccluded

    def _sweep(self, stamp: int, path: Path) -> NDArray[np.int64]:
        """Write a sweep; returns how many of its points lie in each actor's box, `[actors]`."""
        time = self._seconds(stamp)
        points = self.renderer.lidar(time, (self.settings.seed << 32) ^ (stamp & 0xFFFFFFFF))
        path.write_bytes(points.tobytes())
        self.advance()
        counts = np.zeros(len(self.scene.actors), dtype=np.int64)
        if path.parts[-3] == "sweeps":
            return counts
        ego_T_lidar = rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)
        world = transform(self.scene.ego_pose(time) @ ego_T_lidar, points[:, :3])
        xs, ys, yaws = self.scene.poses(time)
        for i, actor in enumerate(self.scene.actors):
            width, length, height = actor.size
            reach = math.hypot(length, width) / 2
            near = world[(np.abs(world[:, 0] - xs[i]) < reach) & (np.abs(world[:, 1] - ys[i]) < reach)]
            offset = near - (xs[i], ys[i], 0.0)
            c, s = math.cos(yaws[i]), math.sin(yaws[i])
            ahead, left = c * offset[:, 0] + s * offset[:, 1], c * offset[:, 1] - s * offset[:, 0]
            inside = (np.abs(ahead) <= length / 2) & (np.abs(left) <= width / 2)
            counts[i] = int((inside & (offset[:, 2] >= 0) & (offset[:, 2] <= height)).sum())
        return counts

    def _samples(self) -> None:
        keyframes = self.settings.keyframes
        tokens = [self._token("sample", k) for k in range(keyframes)]
        for k in range(keyframes):
            self.tables["sample"].append(
                {
                    "token": tokens[k],
                    "timestamp": self.start_us + k * facts.KEYFRAME_PERIOD_US,
                    "prev": tokens[k - 1] if k else "",
                    "next": tokens[k + 1] if k + 1 < keyframes else "",
                    "scene_token": self._token("scene"),
                }
            )
        self.tables["scene"].append(
            {
                "token": self._token("scene"),
                "log_token": token(self.settings.seed, "log", facts.LOCATIONS[self.city][0]),
                "nbr_samples": keyframes,
                "name": self.name,
                "description": self.scene.description(),
                "first_sample_token": tokens[0],
                "last_sample_token": tokens[-1],
            }
        )

    def _annotations(self, seen: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]) -> None:
        for i, actor in enumerate(self.scene.actors):
            frames = [k for k, (visible, _, points) in enumerate(seen) if visible[i] > 3 or points[i] > 0]
            if not frames:
                continue
            tokens = [self._token("annotation", i, k) for k in frames]
            for position, k in enumerate(frames):
                time = k * facts.KEYFRAME_PERIOD_US / 1e6
                xs, ys, yaws = self.scene.poses(time)
                visible, whole, points = (values[i] for values in seen[k])
                share = visible / max(whole, 1)
                level = next(key for key, _, _, upper in facts.VISIBILITIES if share <= upper)
                pose = rigid((xs[i], ys[i], actor.size[2] / 2), (math.cos(yaws[i] / 2), 0, 0, math.sin(yaws[i] / 2)))
                self.tables["sample_annotation"].append(
                    {
                        "token": tokens[position],
                        "sample_token": self._token("sample", k),
                        "instance_token": self._token("instance", i),
                        "visibility_token": level,
                        "attribute_tokens": [token(self.settings.seed, "attribute", actor.attribute(time))],
                        "translation": pose[:3, 3].tolist(),
                        "size": list(actor.size),
                        "rotation": quaternion(pose).tolist(),
                        "prev": tokens[position - 1] if position else "",
                        "next": tokens[position + 1] if position + 1 < len(tokens) else "",
                        "num_lidar_pts": int(points),
                        "num_radar_pts": 0,
                    }
                )
            self.tables["instance"].append(
                {
                    "token": self._token("instance", i),
                    "category_token": token(self.settings.seed, "category", actor.category),
                    "nbr_annotations": len(frames),
                    "first_annotation_token": tokens[0],
                    "last_annotation_token": tokens[-1],
                }
            )
