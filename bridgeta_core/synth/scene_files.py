"""One scene as files and table records."""

from __future__ import annotations

import datetime
import math
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry import quaternion, rigid, transform
from bridgeta_core.synth import nuscenes_facts as facts
from bridgeta_core.synth.render import SceneRenderer
from bridgeta_core.synth.scene import Scene
from bridgeta_core.synth.tokens import token

if TYPE_CHECKING:
    from bridgeta_core.synth.writer import Root

# Microseconds since 1970 of the first log: 14 November 2023.
_EPOCH_US = 1_700_000_000_000_000
_JPEG_QUALITY = 90
SWEEPS = facts.KEYFRAME_PERIOD_US // facts.LIDAR_PERIOD_US


def log_start_us(city: int) -> int:
    """Stamp of the first keyframe in a city's log: one log a day."""
    return _EPOCH_US + city * 86_400_000_000


def log_name(city: int) -> str:
    """Name of a city's log file, as in the names of sensor files."""
    start = datetime.datetime.fromtimestamp(log_start_us(city) / 1e6, tz=datetime.timezone.utc)
    return "n000-" + start.strftime("%Y-%m-%d-%H-%M-%S") + "+0000"


class SceneFiles:
    """Writes one scene's files and appends its records to the tables."""

    def __init__(self, writer: Root, scene: Scene, renderer: SceneRenderer, advance: Callable[[], None]) -> None:
        self.writer, self.scene, self.renderer, self.advance = writer, scene, renderer, advance
        self.settings, self.tables = writer.settings, writer.tables
        self.name = f"scene-{scene.index + 1:04d}"
        self.city = scene.index % writer.used
        turn = scene.index // writer.used
        self.start_us = log_start_us(self.city) + turn * 90_000_000

    def _token(self, *names: object) -> str:
        return token(self.settings.seed, self.name, *names)

    def write(self) -> None:
        """Render and write all files of the scene on the workers; raises what a worker raised."""
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
            for frame, path, stamp in self._sensor(facts.LIDAR_CHANNEL, 0, SWEEPS, "pcd"):
                sweep = self.writer.pool.submit(self._sweep, stamp, path)
                if frame % SWEEPS:
                    rest.append(sweep)
                else:
                    lidar_counts[frame // SWEEPS] = sweep
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

    def _image(self, camera: facts.CameraFacts, stamp: int, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
