"""A scene: the way of the ego vehicle, the actors around it, the light, and all poses at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bridgeta_core.geometry.transforms import Matrix
from bridgeta_core.utils.arrays import Floats
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.seeds import Seed
from bridgeta_synth.traffic.actors import Actor
from bridgeta_synth.traffic.collisions import Obstacles, OccupiedGround, select_compatible
from bridgeta_synth.traffic.fleet import EGO_BASE, EGO_SIZE, EGO_TRACK, WARM_UP, EgoPlan, drive_fleet, plan_ego
from bridgeta_synth.traffic.motion import Motion, Tracks, sample_times
from bridgeta_synth.traffic.pedestrians import add_crossing_people, add_passers_by, plan_crossings
from bridgeta_synth.traffic.roadside import choose_site, equip_site, park_vehicles, place_street_objects
from bridgeta_synth.traffic.routes import Streets
from bridgeta_synth.world.camera_look import CameraLook, draw_look
from bridgeta_synth.world.light import Light, draw_light
from bridgeta_synth.world.solids import SolidList, Solids
from bridgeta_synth.world.town.town import Town

_SIGHT = 105.0  # metres; actors that never come this near to the ego vehicle are left out
_MOST = 170  # actors
_MARGIN = 0.12  # metres between actors
_EVERY = 2  # collisions are sought at every second sample of the motions


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene in a town.

    `ego` is the motion of the rear axle, `bodies` are the actors' solids in their own frames (`Solids.owner` is the
    actor), `looks` the looks of the cameras by channel.
    """

    index: int
    town: Town
    duration: float
    ego: Motion
    actors: tuple[Actor, ...]
    bodies: Solids
    light: Light
    looks: dict[str, CameraLook]

    @cached_property
    def _tracks(self) -> Tracks:
        return Tracks(_ground_poses(self.town, self.actors, len(sample_times(self.duration))))

    @cached_property
    def _ego_track(self) -> Tracks:
        x, y, yaw = self.ego.sampled(len(sample_times(self.duration)))
        half = 0.5 * EGO_BASE
        poses = self.town.terrain.pose(x + half * np.cos(yaw), y + half * np.sin(yaw), yaw, EGO_BASE, EGO_TRACK)
        poses[:, :3, 3] -= half * poses[:, :3, 0]
        return Tracks(poses[None])

    def ego_pose(self, time: float) -> Matrix:
        """Return global_T_ego at a time: the middle of the rear axle on the ground, with roll and pitch."""
        return np.asarray(self._ego_track.poses(time)[0])

    def poses(self, times: float | Floats) -> Floats:
        """Return global_T_actor `[actors, 4, 4]` at one time or a time per actor: on the ground below their middles."""
        return self._tracks.poses(times)

    def observed_poses(self, time: float) -> Floats:
        """Return the pose of each actor when the LiDAR sweep stamped `time` passes it, which is annotated."""
        ego, poses = self.ego_pose(time), self.poses(time)
        if not len(poses):
            return poses
        # The sweep turns about the sensor, which is ahead of the rear axle.
        x, y, _ = ((poses[:, :3, 3] - ego[:3, 3]) @ ego[:3, :3] - np.array(facts.LIDAR_TRANSLATION)).T
        return self.poses(time + facts.sweep_delay(np.arctan2(y, x)))

    def describe(self) -> str:
        """Describe the scene in a line like those of nuScenes' scene table; night and rain are named."""
        words = list(self.light.keywords())
        _, _, yaw = self.ego.at(np.arange(0.0, self.duration + 0.01, 0.5))
        speeds = np.array([self.ego.speed(t) for t in np.arange(0.0, self.duration + 0.01, 0.5)])
        turned = math.degrees(float(yaw[-1] - yaw[0]))
        if speeds.max() < 0.3:
            words.append("waiting")
        else:
            words.append("turn left" if turned > 40 else "turn right" if turned < -40 else "drive straight")
            if speeds.min() < 0.3:
                words.append("wait in traffic")
        manners = [a.manner for a in self.actors]
        people = manners.count("pedestrian")
        vehicles = manners.count("vehicle")
        words += [text for text, holds in self._list_features(manners) if holds]
        words.append("many pedestrians" if people > 14 else "pedestrians" if people > 2 else "few people")
        words.append("dense traffic" if vehicles > 24 else "traffic" if vehicles > 5 else "little traffic")
        text = ", ".join(words)
        return text[0].upper() + text[1:]

    def _list_features(self, manners: list[str]) -> list[tuple[str, bool]]:
        names = [a.category for a in self.actors]
        return [
            ("many parked cars", manners.count("parked") > 15),
            ("parked cars", 3 < manners.count("parked") <= 15),
            ("construction site", names.count("movable_object.trafficcone") > 5),
            ("barriers", names.count("movable_object.barrier") > 3),
            ("bus", any(name.startswith("vehicle.bus") for name in names)),
            ("cyclists", any(a.manner == "ridden" and a.category == "vehicle.bicycle" for a in self.actors)),
        ]


def _ground_poses(town: Town, actors: tuple[Actor, ...], steps: int) -> Floats:
    """Return global_T_actor `[actors, steps, 4, 4]` on the ground."""
    poses = np.zeros((len(actors), steps, 4, 4))
    poses[:] = np.eye(4)
    for still in (True, False):
        for wheeled in (True, False):
            chosen = [k for k, a in enumerate(actors) if a.is_still == still and (a.model.axles is not None) == wheeled]
            if not chosen:
                continue
            x, y, yaw = np.stack([actors[k].motion.sampled(1 if still else steps) for k in chosen], axis=1)
            poses[chosen] = (
                _wheeled_poses(town, actors, chosen, x, y, yaw) if wheeled else _upright_poses(town, x, y, yaw)
            )
    return poses


def _wheeled_poses(
    town: Town, actors: tuple[Actor, ...], chosen: list[int], x: Floats, y: Floats, yaw: Floats
) -> Floats:
    """Return poses `[n, t, 4, 4]` on wheels: on the carriageway, or parked on a footpath beside it."""
    shares = np.array([actors[k].model.axles for k in chosen])
    size = np.array([actors[k].size for k in chosen])
    result = town.terrain.pose(x, y, yaw, (shares[:, 0] * size[:, 1])[:, None], (shares[:, 1] * size[:, 0])[:, None])
    if x.shape[1] == 1:
        place = np.stack((x, y), axis=-1)
        result[..., 2, 3] += town.height(place) - town.terrain.height(place)
    return result


def _upright_poses(town: Town, x: Floats, y: Floats, yaw: Floats) -> Floats:
    """Return upright poses `[n, t, 4, 4]` on the ground, on footpaths as on carriageways."""
    result = np.zeros((*x.shape, 4, 4))
    result[..., 0, 0] = result[..., 1, 1] = np.cos(yaw)
    result[..., 1, 0] = np.sin(yaw)
    result[..., 0, 1] = -result[..., 1, 0]
    result[..., 0, 3], result[..., 1, 3] = x, y
    result[..., 2, 3] = town.height(np.stack((x, y), axis=-1))
    result[..., 2, 2] = result[..., 3, 3] = 1
    return result


def build_scene(
    town: Town, seed: Seed, index: int, duration: float, weather: str = "mixed", plan: EgoPlan | None = None
) -> Scene:
    """Build the scene `index` of a seed in its town; equal arguments give an equal scene.

    The ego vehicle drives by `plan`, or by one that is drawn.
    """
    rng = np.random.default_rng([*seed, 2, index])
    appearance = np.random.default_rng([*seed, 7, index])
    light = draw_light(appearance, weather)
    looks = {camera.channel: draw_look(appearance, light) for camera in facts.CAMERAS}
    wet, quiet = light.rain > 0, 0.5 if light.kind == "night" else 1.0
    # Few scenes are empty, few are crowded.
    busy = float(rng.beta(1.6, 1.8))
    times, streets = sample_times(duration), Streets(town)
    plan = plan_ego(town, streets, duration, rng) if plan is None else plan
    track = plan.track(duration + WARM_UP)
    crossings = plan_crossings(town, track, int(rng.poisson(0.3 + 2.0 * busy * quiet)), duration, rng)
    lanes = streets.nearby(track, 130.0)
    site = None
    if rng.random() < 0.3:
        site = choose_site(town, lanes, {lane for lane, _ in plan.route.segments}, track, rng)
        streets.closed |= {site.lane} if site else set()
    count = int(6 + 100 * float(rng.beta(1.3, 1.9)) * (0.4 + busy) * quiet)
    ego, moving = drive_fleet(town, streets, plan, lanes, crossings, count, times, rng)

    scene_actors = _SceneActors(town, ego, len(times))
    scene_actors.admit_traffic(moving)
    for crossing in crossings:
        add_crossing_people(crossing, times, rng, wet, scene_actors.admit)
    objects = equip_site(town, site, rng) if site is not None else []
    objects += park_vehicles(town, scene_actors.ego_track, float(rng.uniform(0.05, 0.95)), 80.0, rng)
    objects += place_street_objects(town, scene_actors.ego_track, float(rng.uniform(0.0, 0.35)), rng)
    for actor in objects:
        scene_actors.admit([actor])
    people = int(rng.gamma(1.3, 25.0) * (0.3 + busy) * quiet * (0.6 if wet else 1.0))
    add_passers_by(town, scene_actors.ego_track, min(people, 80), times, rng, wet, scene_actors.admit)
    actors = scene_actors.nearest(_MOST)
    bodies = SolidList()
    for owner, actor in enumerate(actors):
        actor.add_body(bodies, owner)
    return Scene(index, town, duration, ego, tuple(actors), bodies.build(), light, looks)


class _SceneActors:
    """The actors of a scene: they come near the ego vehicle and never touch it, each other or what stands there.

    `ego_track [n, 2]` are places of the ego vehicle, half a second apart.
    """

    def __init__(self, town: Town, ego: Motion, steps: int) -> None:
        self._steps = steps
        x, y, yaw = ego.sampled(steps)
        self.ego_track = np.stack((x, y), axis=1)[::10]
        middle = 0.5 * EGO_BASE
        own = np.stack((x + middle * np.cos(yaw), y + middle * np.sin(yaw), yaw))[None, :, ::_EVERY]
        self._obstacles = Obstacles(town, self.ego_track, _SIGHT + 20)
        self._ground = OccupiedGround(self._obstacles, own, np.array([EGO_SIZE[1::-1]]) / 2, _MARGIN)
        self._actors: list[Actor] = []

    def admit_traffic(self, vehicles: list[Actor]) -> None:
        """Admit the vehicles in traffic that touch nothing; parties together."""
        away = np.array([self._distance_to_ego(a) for a in vehicles])
        tracks = np.concatenate((self._ground.tracks, *([self._sample(a)] for a in vehicles)))
        half = np.concatenate((self._ground.half, _half_sizes(vehicles)))
        party = np.array([-1, *(a.party for a in vehicles)])
        blocked = self._obstacles.hit(tracks, half) | np.concatenate(([False], away > _SIGHT))
        blocked[0] = False
        selected = select_compatible(tracks, half + 0.5 * _MARGIN, party, blocked)
        self._ground = OccupiedGround(self._obstacles, tracks[selected], half[selected], _MARGIN)
        self._actors += [a for a, stays in zip(vehicles, selected[1:], strict=True) if stays]

    def admit(self, actors: list[Actor]) -> bool:
        """Admit actors if all of them are near and touch nothing; return whether."""
        if any(self._distance_to_ego(a) > _SIGHT for a in actors):
            return False
        if not self._ground.admit(np.stack([self._sample(a) for a in actors]), _half_sizes(actors)):
            return False
        self._actors += actors
        return True

    def nearest(self, most: int) -> list[Actor]:
        """Return at most `most` actors in the order of their admission, without the farthest."""
        away = np.array([self._distance_to_ego(a) for a in self._actors])
        return [self._actors[k] for k in np.sort(np.argsort(away, kind="stable")[:most])]

    def _sample(self, actor: Actor) -> Floats:
        return actor.motion.sampled(self._steps)[:, ::_EVERY]

    def _distance_to_ego(self, actor: Actor) -> float:
        """Return the least distance to the ego vehicle, metres, at samples half a second apart."""
        x, y, _ = actor.motion.sampled(self._steps)[:, ::10]
        return float(np.hypot(x - self.ego_track[:, 0], y - self.ego_track[:, 1]).min())


def _half_sizes(actors: list[Actor]) -> Floats:
    """Return half lengths and widths, `[n, 2]`."""
    return np.array([(a.size[1], a.size[0]) for a in actors]).reshape(-1, 2) / 2
