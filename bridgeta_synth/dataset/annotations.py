"""Annotate a scene: the boxes of its actors, how visible they are, and how many LiDAR points hit them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridgeta_core.geometry.transforms import Matrix, invert, quaternion, transform
from bridgeta_core.utils.arrays import Floats, Ints
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.records import Record, SceneRecords
from bridgeta_synth.seeds import token
from bridgeta_synth.traffic.actors import Actor

_LEAST_PIXELS = 4


@dataclass(frozen=True, eq=False)
class Sighting:
    """How a keyframe's sensors see each actor, `[actors]` each: pixels that show it in all cameras together,
    pixels that would show it were nothing in front, and LiDAR points in its box.
    """

    visible: Ints
    unoccluded: Ints
    points: Ints


def centre_box(pose: Matrix, size: tuple[float, float, float]) -> Matrix:
    """Compute global_T_box, its origin in the middle of the box, from global_T_actor, its origin on the ground."""
    result = pose.copy()
    result[:3, 3] += pose[:3, 2] * (size[2] / 2)
    return result


def count_points_in_boxes(points: Floats, poses: Floats, actors: Sequence[Actor]) -> Ints:
    """Count the global points `[n, 3]` in the box of each actor at its pose `[actors, 4, 4]`: `[actors]`."""
    counts = np.zeros(len(actors), dtype=np.int64)
    points = points[np.argsort(points[:, 0])]
    for i, actor in enumerate(actors):
        width, length, height = actor.size
        box = centre_box(poses[i], actor.size)
        half = np.array((length, width, height)) / 2
        reach = np.linalg.norm(half)
        first, last = np.searchsorted(points[:, 0], (box[0, 3] - reach, box[0, 3] + reach))
        near = points[first:last]
        counts[i] = (np.abs(transform(invert(box), near)) <= half).all(axis=1).sum()
    return counts


def annotate(records: SceneRecords, sightings: Sequence[Sighting]) -> tuple[list[Record], list[Record], dict[str, int]]:
    """Make the records of sample_annotation and instance, and count the annotations per category.

    `sightings` has one entry per keyframe. An actor is annotated in the keyframes in which a few pixels or a point show
    it.
    """
    scene, seeds = records.scene, records.settings.seeds
    times = [records.keyframe_time(k) for k in range(len(sightings))]
    poses = [scene.observed_poses(time) for time in times]
    annotations: list[Record] = []
    instances: list[Record] = []
    categories: Counter[str] = Counter()
    for i, actor in enumerate(scene.actors):
        shown = [k for k, s in enumerate(sightings) if s.visible[i] >= _LEAST_PIXELS or s.points[i] > 0]
        if not shown:
            continue
        tokens = ["", *(records.token("annotation", i, k) for k in shown), ""]
        for position, k in enumerate(shown, start=1):
            box = centre_box(poses[k][i], actor.size)
            attribute = actor.attribute(times[k])
            annotations.append(
                {
                    "token": tokens[position],
                    "sample_token": records.token("sample", k),
                    "instance_token": records.token("instance", i),
                    "visibility_token": _visibility(sightings[k], i),
                    "attribute_tokens": [token(seeds, "attribute", attribute)] if attribute else [],
                    "translation": box[:3, 3].tolist(),
                    "size": list(actor.size),
                    "rotation": quaternion(box).tolist(),
                    "prev": tokens[position - 1],
                    "next": tokens[position + 1],
                    "num_lidar_pts": int(sightings[k].points[i]),
                    "num_radar_pts": 0,
                }
            )
        instances.append(
            {
                "token": records.token("instance", i),
                "category_token": token(seeds, "category", actor.category),
                "nbr_annotations": len(shown),
                "first_annotation_token": tokens[1],
                "last_annotation_token": tokens[-2],
            }
        )
        categories[actor.category] += len(shown)
    return annotations, instances, dict(categories)


def _visibility(sighting: Sighting, actor: int) -> str:
    share = sighting.visible[actor] / max(int(sighting.unoccluded[actor]), 1)
    return next(key for key, _, _, upper in facts.VISIBILITIES if share <= upper)
