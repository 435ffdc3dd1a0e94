"""Write one scene as files and table records."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.geometry.transforms import rigid, transform
from bridgeta_core.utils.arrays import Ints
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.annotations import Sighting, annotate, count_points_in_boxes
from bridgeta_synth.dataset.datasheet import LabelCells, Tally, find_visible
from bridgeta_synth.dataset.records import SceneRecords, SensorFile
from bridgeta_synth.render.renderer import CameraView, SceneRenderer


@dataclass(eq=False)
class _Keyframe:
    """What is known of a keyframe so far: its cameras' views, and LiDAR points per actor `[actors]`."""

    views: list[tuple[SensorFile, CameraView]] = field(default_factory=list)
    points: Ints | None = None


class SceneWriter:
    """Renders one scene, writes its files below `root`, and counts what they show.

    `advance` is called for every file that is written, from any thread.
    """

    def __init__(
        self,
        root: Path,
        records: SceneRecords,
        renderer: SceneRenderer,
        raster: MapRaster,
        advance: Callable[[], None],
    ) -> None:
        self.root, self.records, self.renderer, self.raster, self.advance = root, records, renderer, raster, advance
        self.scene, self.settings = records.scene, records.settings
        self._before: LabelCells | None = None
        self._tally = Tally(scenes=1, files=self.settings.files_per_scene)

    def write(self, pool: Executor) -> dict[str, Any]:
        """Write all files, as many at a time as the pool has threads; raise what a thread raised.

        Returns {"tables": the scene's records by table, "tally": its counts for the data sheet}.
        """
        for path in self.list_paths():
            path.parent.mkdir(parents=True, exist_ok=True)
        jobs = deque((shot, pool.submit(self._run_shot, shot)) for shot in self._plan_shots())
        keyframes = [_Keyframe() for _ in range(self.settings.keyframes)]
        sightings: list[Sighting] = []
        try:
            # In order of time, so that the depth images of a keyframe are soon freed.
            while jobs:
                shot, job = jobs.popleft()
                result = job.result()
                k = shot[0].keyframe
                if k is None:
                    continue
                if isinstance(result, list):
                    keyframes[k].views += zip(shot, result, strict=True)
                else:
                    keyframes[k].points = result
                if len(keyframes[k].views) + (keyframes[k].points is not None) == len(self.settings.channels):
                    sightings.append(self._count_keyframe(k, keyframes[k]))
                    keyframes[k] = _Keyframe()
        except BaseException:
            for _, job in jobs:
                job.cancel()
            raise
        tables = self.records.make_tables()
        tables["sample_annotation"], tables["instance"], self._tally.annotations = annotate(self.records, sightings)
        self._tally.add_weather(self.scene.light)
        return {"tables": tables, "tally": asdict(self._tally)}

    def list_paths(self) -> list[Path]:
        """List all files of the scene."""
        return [
            self.root / file.path for channel in self.settings.channels for file in self.records.iter_files(channel)
        ]

    def _plan_shots(self) -> list[tuple[SensorFile, ...]]:
        """Plan which files are rendered together, ordered by time.

        A CPU renders single files, other devices all cameras that belong together.
        """
        per_sensor = [list(self.records.iter_files(channel)) for channel in self.settings.channels]
        shots: list[tuple[SensorFile, ...]] = [(file,) for file in per_sensor[-1]] if self.settings.lidar else []
        cameras = per_sensor[: len(facts.CAMERA_OF)]
        if self.renderer.device.type == "cpu":
            shots += [(file,) for files in cameras for file in files]
        else:
            shots += zip(*cameras, strict=True)
        return sorted(shots, key=lambda shot: max(file.stamp for file in shot))

    def _run_shot(self, shot: tuple[SensorFile, ...]) -> list[CameraView] | Ints | None:
        """Render and write a shot. Return the views of a keyframe's cameras, or the points per actor of its sweep."""
        if shot[0].channel == facts.LIDAR_CHANNEL:
            return self._write_sweep(shot[0])
        views = self.renderer.render_cameras([(facts.CAMERA_OF[file.channel], file.time) for file in shot])
        for file, view in zip(shot, views, strict=True):
            quality = self.scene.looks[file.channel].jpeg_quality
            bgr = cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR)
            done, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
            assert done
            (self.root / file.path).write_bytes(data.tobytes())
            self.advance()
        return None if shot[0].keyframe is None else views

    def _write_sweep(self, file: SensorFile) -> Ints | None:
        points = self.renderer.render_sweep(file.time)
        (self.root / file.path).write_bytes(points.astype("<f4").tobytes())
        self.advance()
        if file.keyframe is None:
            return None
        global_T_lidar = self.scene.ego_pose(file.time) @ rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)
        return count_points_in_boxes(
            transform(global_T_lidar, points[:, :3]), self.scene.observed_poses(file.time), self.scene.actors
        )

    def _count_keyframe(self, k: int, keyframe: _Keyframe) -> Sighting:
        """Count what a complete keyframe shows."""
        pose = self.records.stored_ego_pose(self.records.keyframe_time(k))
        around = LabelCells.of(self.scene.town, self.raster, pose)
        self._tally.add_place(self.scene.town.location, *pose[:2, 3])
        seen = np.zeros(len(around.places), dtype=bool)
        zeros = np.zeros(len(self.scene.actors), dtype=np.int64)
        visible, unoccluded = zeros.copy(), zeros.copy()
        for file, view in keyframe.views:
            camera = facts.CAMERA_OF[file.channel]
            pose = self.scene.ego_pose(file.time) @ camera.ego_T_cam
            seen |= find_visible(around.places, pose, camera.intrinsics(*self.settings.image_size), view.depth)
            visible += view.visible
            unoccluded += view.unoccluded
        self._tally.add_keyframe(around, seen, self._before)
        self._before = around
        return Sighting(visible, unoccluded, zeros if keyframe.points is None else keyframe.points)
