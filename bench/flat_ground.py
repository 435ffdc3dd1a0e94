"""Measure the error of a flat-ground projection in the synthetic world.

`python bench/flat_ground.py [--scenes 12] [--seed 0]`

Every pixel that shows ground is projected to where its ray hits the plane of the vehicle's wheels, as inverse
perspective mapping does, and compared with the place that it really shows. The error is the horizontal distance between
the two, at most 50 m, averaged per BEV cell of 0.5 m and keyframe, then over cells by their range. The same scenes in
the same towns without hills show the effect of kerbs alone; the rest is due to slopes.
"""

from __future__ import annotations

import argparse
import datetime
import itertools

import numpy as np
import torch
from machine import read_cpu_name
from rich.progress import track

from bridgeta_core.geometry.transforms import invert, transform
from bridgeta_core.utils.arrays import Floats
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.world import World
from bridgeta_synth.render.rays.ray_caster import GROUND, View, trace_views
from bridgeta_synth.render.renderer import SceneRenderer
from bridgeta_synth.settings import SynthSettings

EDGES = (0, 10, 20, 30, 40, 50)
WIDTH, HEIGHT = 400, 225
CLIP = 50.0


def measure_errors(settings: SynthSettings) -> Floats:
    """Measure for every visible cell of every keyframe: range, mean error, share of raised ground, `[n, 3]`."""
    world, rows = World(settings), []
    cpu = torch.device("cpu")
    for index in track(range(settings.scenes), description=f"relief {settings.relief:g}", transient=True):
        scene = world.make_scene(index)
        renderer = SceneRenderer(scene, settings.seeds, WIDTH, HEIGHT, cpu)
        for keyframe in range(settings.keyframes):
            time = keyframe * facts.KEYFRAME_PERIOD_US / 1e6
            ego = scene.ego_pose(time)
            solids = renderer.collect_solids([scene.poses(time)], ego[:2, 3])[0]
            found = []
            for camera in facts.CAMERAS:
                view = View(ego @ camera.ego_T_cam, camera.intrinsics(WIDTH, HEIGHT), WIDTH, HEIGHT)
                traced = trace_views(renderer.ground_shape, solids, [view], cpu)
                on_ground = ((traced.row == GROUND) & (traced.distance < 80)).nonzero()[:, 0]
                shown = traced.points(on_ground)
                raised = renderer.ground_shape.is_raised(shown[:, 0], shown[:, 1]).numpy()
                truth = transform(invert(ego), shown.numpy().astype(np.float64))
                rays = traced.direction[on_ground].numpy() @ ego[:3, :3]
                found.append(np.column_stack((truth[:, :2], _project_flat(camera.ego_T_cam[:3, 3], rays), raised)))
            rows.append(_average_per_cell(np.concatenate(found)))
    return np.concatenate(rows)


def _project_flat(origin: Floats, rays: Floats) -> Floats:
    """Find where rays `[n, 3]` from a camera hit the plane z = 0 of the ego frame, `[n, 2]`; far away if they do
    not.
    """
    falls = rays[:, 2] < -1e-4
    t = np.where(falls, -origin[2] / np.where(falls, rays[:, 2], -1), 1e4)
    return np.asarray(origin[:2] + t[:, None] * rays[:, :2])


def _average_per_cell(pixels: Floats) -> Floats:
    """Average pixels (true x, y, flat x, y, raised) per BEV cell."""
    error = np.minimum(np.hypot(*(pixels[:, :2] - pixels[:, 2:4]).T), CLIP)
    cell = np.floor(pixels[:, :2] / 0.5).astype(np.int64) + 1000
    _, which, count = np.unique(cell[:, 0] * 2000 + cell[:, 1], return_inverse=True, return_counts=True)
    values = np.column_stack((np.hypot(pixels[:, 0], pixels[:, 1]), error, pixels[:, 4]))
    return np.stack([np.bincount(which, column) / count for column in values.T], axis=1)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    hills, level = (
        measure_errors(SynthSettings(scenes=options.scenes, seed=options.seed, duration=4.5, relief=relief))
        for relief in (1.0, 0.0)
    )
    print(f"{read_cpu_name()}, {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, {options.scenes} scenes of 10")
    heads = ("range, m", "hilly: mean error, m", "median", "share above 1 m", "level: mean, m", "due to slope")
    lines = ["| " + " | ".join((*heads, "carriageways, hilly")) + " |", "|---" * 7 + "|"]
    for low, high in itertools.pairwise(EDGES):
        a, b = (part[(part[:, 0] >= low) & (part[:, 0] < high)] for part in (hills, level))
        road = a[a[:, 2] < 0.5, 1]
        mean, kerbs = a[:, 1].mean(), b[:, 1].mean()
        lines.append(
            f"| {low}-{high} | {mean:.2f} | {np.median(a[:, 1]):.2f} | {(a[:, 1] > 1).mean():.0%} | {kerbs:.2f} "
            f"| {max(0.0, 1 - kerbs / mean):.0%} | {road.mean():.2f} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
