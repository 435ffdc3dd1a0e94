"""The tables that are the same for every scene: what there can be, the sensors and their calibration, the maps."""

from __future__ import annotations

from collections.abc import Sequence

from bridgeta_core.geometry.transforms import quaternion, rigid
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.records import Record, Tables
from bridgeta_synth.seeds import token
from bridgeta_synth.settings import SynthSettings


def vocabulary(settings: SynthSettings, locations: Sequence[str]) -> Tables:
    """The tables category, attribute, visibility, sensor and calibrated_sensor of a data set in some cities."""

    def named(kind: str, entries: Sequence[tuple[str, str]]) -> list[Record]:
        return [
            {"token": token(settings.seeds, kind, name), "name": name, "description": text} for name, text in entries
        ]

    return {
        "category": named("category", facts.CATEGORIES),
        "attribute": named("attribute", facts.ATTRIBUTES),
        "visibility": [
            {"token": key, "level": level, "description": text} for key, level, text, _ in facts.VISIBILITIES
        ],
        "sensor": [
            {
                "token": token(settings.seeds, "sensor", channel),
                "channel": channel,
                "modality": "lidar" if channel == facts.LIDAR_CHANNEL else "camera",
            }
            for channel in settings.channels
        ],
        "calibrated_sensor": [record for location in locations for record in calibrated_sensors(settings, location)],
    }


def calibrated_sensors(settings: SynthSettings, location: str) -> list[Record]:
    """The calibration of all sensors as it was in a city, cameras first."""
    mounts = [(c.channel, c.ego_T_cam, c.intrinsics(*settings.image_size).tolist()) for c in facts.CAMERAS]
    if settings.lidar:
        mounts.append((facts.LIDAR_CHANNEL, rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION), []))
    return [
        {
            "token": token(settings.seeds, "calibration", location, channel),
            "sensor_token": token(settings.seeds, "sensor", channel),
            "translation": pose[:3, 3].tolist(),
            "rotation": quaternion(pose).tolist(),
            "camera_intrinsic": intrinsics,
        }
        for channel, pose, intrinsics in mounts
    ]


def map_record(settings: SynthSettings, location: str, logs: Sequence[Record]) -> Record:
    """The map of a city, which belongs to those of the `logs` that are from there."""
    prior = token(settings.seeds, "map", location)
    return {
        "category": "semantic_prior",
        "token": prior,
        "filename": f"maps/{prior}.png",
        "log_tokens": [log["token"] for log in logs if log["location"] == location],
    }
