"""A nuScenes root of a few kilobytes, written without any code of ours, and a network of a few thousand weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bridgeta_core.config import experiment as config

CITIES = ("singapore-onenorth", "boston-seaport")
SCENES = ("scene-0061", "scene-0103")  # in the official splits mini_train and mini_val
CAMERAS = ("CAM_FRONT", "CAM_BACK")
WIDTH, HEIGHT = 64, 36
START = 1_600_000_000_000_000

SMALL_NETWORK = [
    "model.image.width=96",
    "model.image.height=64",
    "model.backbone.options={embedding_size: 8, hidden_sizes: [8, 8, 16, 16], depths: [1, 1, 1, 1], layer_type: basic}",
    "model.backbone.channels=16",
    "model.lift.depth_step=4.0",
    "model.lift.channels=8",
    "model.lift.grid.resolution=3.2",
    "model.decoder={width: 16, stages: [16, 16], blocks: 1, channels: 8}",
    "model.head.width=8",
    "teacher.lidar={channels: 8, width: 16, blocks: 0, sweeps: 1}",
    "distill.bridgeta.network.channels=8",
    "grid.resolution=2.0",
    "data.batch_size=2",
    "data.workers=0",
    "train.epochs=2",
]


class MapSheet:
    """A map expansion under construction: add shapes by layer, then write the JSON."""

    def __init__(self) -> None:
        layers = "drivable_area road_segment road_block lane ped_crossing walkway stop_line carpark_area road_divider"
        more = "lane_divider traffic_light lane_connector polygon line node arcline_path_3 connectivity"
        self.content: dict[str, Any] = {layer: [] for layer in f"{layers} {more}".split()}
        self.content |= {"version": "1.3", "canvas_edge": [1000, 1000], "arcline_path_3": {}, "connectivity": {}}

    def _nodes(self, xy: Any) -> list[str]:
        first = len(self.content["node"])
        tokens = [f"n{first + i}" for i in range(len(xy))]
        self.content["node"] += [
            {"token": t, "x": float(x), "y": float(y)} for t, (x, y) in zip(tokens, xy, strict=True)
        ]
        return tokens

    def polygon(self, layer: str, exterior: Any, holes: Any = ()) -> None:
        token = f"p{len(self.content['polygon'])}"
        record = {
            "token": token,
            "exterior_node_tokens": self._nodes(exterior),
            "holes": [{"node_tokens": self._nodes(hole)} for hole in holes],
        }
        self.content["polygon"].append(record)
        if layer == "drivable_area":
            self.content[layer].append({"token": f"r{token}", "polygon_tokens": [token]})
        else:
            self.content[layer].append({"token": f"r{token}", "polygon_token": token, "stop_line_type": "YIELD"})

    def line(self, layer: str, xy: Any) -> None:
        token = f"l{len(self.content['line'])}"
        self.content["line"].append({"token": token, "node_tokens": self._nodes(xy)})
        self.content[layer].append({"token": f"r{token}", "line_token": token})

    def write(self, root: Path, city: str) -> Path:
        path = root / "maps" / "expansion" / f"{city}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content))
        return path


def star(rng: np.random.Generator, centre: Any, radius: float, corners: int = 9) -> np.ndarray:
    """A simple polygon around a centre, with no two corners in the same direction."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners) * 0.01 + np.arange(corners) * 2 * np.pi / corners)
    reach = radius * rng.uniform(0.5, 1, corners)
    return np.asarray(centre) + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def random_map(seed: int, without: tuple[str, ...] = ()) -> MapSheet:
    """Shapes of every layer, with holes and overlaps, within about 100 m of the origin."""
    rng, sheet = np.random.default_rng(seed), MapSheet()
    for layer in ("drivable_area", "ped_crossing", "walkway", "stop_line", "carpark_area"):
        for _ in range(0 if layer in without else 12):
            centre, radius = rng.uniform(-90, 90, 2), rng.uniform(2, 40)
            holes = [star(rng, centre, 0.3 * radius, 5)] if rng.random() < 0.5 else []
            sheet.polygon(layer, star(rng, centre, radius), holes)
    for layer in ("road_divider", "lane_divider"):
        for _ in range(0 if layer in without else 15):
            sheet.line(layer, np.cumsum(np.vstack([rng.uniform(-90, 90, 2), rng.normal(0, 15, (6, 2))]), axis=0))
    return sheet


def _write_root(root: Path) -> None:
    """Two scenes of two keyframes, a sweep after each; one scene per city; boston knows no stop lines."""
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict[str, Any]]] = {
        "category": [],
        "attribute": [],
        "visibility": [],
        "instance": [],
        "sample_annotation": [],
        "sensor": [{"token": f"s-{c}", "channel": c, "modality": "camera"} for c in CAMERAS]
        + [{"token": "s-LIDAR_TOP", "channel": "LIDAR_TOP", "modality": "lidar"}],
        "calibrated_sensor": [],
        "ego_pose": [],
        "log": [],
        "scene": [],
        "sample": [],
        "sample_data": [],
        "map": [],
    }
    intrinsics = [[50.0, 0, 31.5], [0, 50.0, 17.5], [0, 0, 1]]
    optical = {
        "CAM_FRONT": [0.5, -0.5, 0.5, -0.5],
        "CAM_BACK": [0.5, -0.5, -0.5, 0.5],
        "LIDAR_TOP": [0.5**0.5, 0, 0, -(0.5**0.5)],
    }
    for channel, rotation in optical.items():
        tables["calibrated_sensor"].append(
            {
                "token": f"c-{channel}",
                "sensor_token": f"s-{channel}",
                "translation": [1.0, 0.1, 1.5],
                "rotation": rotation,
                "camera_intrinsic": [] if channel == "LIDAR_TOP" else intrinsics,
            }
        )
    for number, (name, city) in enumerate(zip(SCENES, CITIES, strict=True)):
        tables["log"].append({"token": f"log{number}", "location": city, "logfile": f"log{number}"})
        (root / "maps").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "maps" / f"{city}.png"), np.zeros((4, 4), np.uint8))
        tables["map"].append(
            {"token": f"m{number}", "log_tokens": [f"log{number}"], "filename": f"maps/{city}.png", "category": "x"}
        )
        random_map(number, without=("stop_line",) if number else ()).write(root, city)
        samples = [f"{name}-{k}" for k in range(2)]
        tables["scene"].append(
            {
                "token": f"scene{number}",
                "log_token": f"log{number}",
                "nbr_samples": 2,
                "name": name,
                "description": "Night, rain" if number else "Day",
                "first_sample_token": samples[0],
                "last_sample_token": samples[-1],
            }
        )
        for k, sample in enumerate(samples):
            stamp = START + number * 100_000_000 + k * 500_000
            tables["sample"].append(
                {"token": sample, "timestamp": stamp, "scene_token": f"scene{number}", "prev": "", "next": ""}
            )
            for channel in optical:
                for sweep in range(2):
                    time = stamp + sweep * 250_000 - (0 if channel == "LIDAR_TOP" else 20_000)
                    token = f"{sample}-{channel}-{sweep}"
                    lidar = channel == "LIDAR_TOP"
                    file = f"{'sweeps' if sweep else 'samples'}/{channel}/{token}{'.pcd.bin' if lidar else '.jpg'}"
                    path = root / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if lidar:
                        places, values = rng.normal(0, 20, (50, 3)), rng.integers(0, (256, 32), (50, 2))
                        np.hstack([places, values]).astype("<f4").tofile(path)
                    else:
                        picture = cv2.resize(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))
                        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
                    angle = 0.4 * number + 0.1 * k
                    tables["ego_pose"].append(
                        {
                            "token": f"e-{token}",
                            "timestamp": time,
                            "translation": [10.0 * number + (time - START) % 10_000_000 * 1e-6, 5.0, 0.0],
                            "rotation": [np.cos(angle / 2), 0, 0, np.sin(angle / 2)],
                        }
                    )
                    tables["sample_data"].append(
                        {
                            "token": token,
                            "sample_token": sample,
                            "ego_pose_token": f"e-{token}",
                            "calibrated_sensor_token": f"c-{channel}",
                            "timestamp": time,
                            "fileformat": "pcd" if lidar else "jpg",
                            "is_key_frame": not sweep,
                            "width": 0 if lidar else WIDTH,
                            "height": 0 if lidar else HEIGHT,
                            "filename": file,
                            "prev": "",
                            "next": "",
                        }
                    )
    rng.shuffle(tables["sample_data"])  # the order of a table means nothing
    (root / "v1.0-mini").mkdir()
    for table, rows in tables.items():
        (root / "v1.0-mini" / f"{table}.json").write_text(json.dumps(rows))


@pytest.fixture(scope="session")
def _small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small") / "root"
    _write_root(root)
    return root


@pytest.fixture(scope="session")
def small_root(_small_root: Path) -> Path:
    """The small root, to read only: version v1.0-mini, 2 scenes of 2 keyframes, 2 cameras of 64x36 and LIDAR_TOP."""
    return _small_root


@pytest.fixture(scope="session")
def other_root(_small_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the names of the small one for other samples and other maps, to read only."""
    root = Path(shutil.copytree(_small_root, tmp_path_factory.mktemp("other") / "other"))
    for table in (root / "v1.0-mini").iterdir():
        content = table.read_text()
        for name in SCENES:
            content = content.replace(f'"{name}-', f'"other-{name}-')
        table.write_text(content)
    for number, city in enumerate(CITIES):
        random_map(10 + number).write(root, city)
    return root


@pytest.fixture(scope="session")
def fleet_root(other_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other root without its maps, to read only: drives of a fleet."""
    root = Path(shutil.copytree(other_root, tmp_path_factory.mktemp("fleet") / "fleet"))
    shutil.rmtree(root / "maps")
    return root


@pytest.fixture
def broken_root(_small_root: Path, tmp_path: Path) -> Path:
    """A copy of the small root to break."""
    return Path(shutil.copytree(_small_root, tmp_path / "root"))


@pytest.fixture(scope="session")
def map_sheet() -> type[MapSheet]:
    """Draws maps: `sheet = map_sheet(); sheet.polygon(layer, corners, holes); sheet.write(root, city)`."""
    return MapSheet


@pytest.fixture(scope="session")
def small_network() -> list[str]:
    """Settings of a student and a teacher of a few thousand weights, for two epochs of small batches."""
    return list(SMALL_NETWORK)


@pytest.fixture(scope="session")
def experiment() -> Callable[..., config.Experiment]:
    """`experiment(root, *overrides)`: settings of a small run on a root of version v1.0-mini."""

    def make(root: Path, *overrides: str) -> config.Experiment:
        roots = [f"data.train_root={root}", f"data.val_root={root}", "data.version=v1.0-mini"]
        return config.load(config.Experiment, "tiny", [*SMALL_NETWORK, *roots, *overrides])

    return make


@pytest.fixture(scope="session")
def two_scenes(experiment: Callable[..., config.Experiment], small_root: Path) -> Callable[..., config.Experiment]:
    """`two_scenes(*overrides)`: settings for the small root: 2 scenes of 2 frames with 2 cameras."""

    def make(*overrides: str) -> config.Experiment:
        return experiment(small_root, "data.cameras=[CAM_FRONT,CAM_BACK]", *overrides)

    return make
