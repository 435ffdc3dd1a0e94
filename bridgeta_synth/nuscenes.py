"""Facts of the nuScenes dataset that the synthetic world follows: sensors, stamps, vocabularies.

Numbers are those of one vehicle of the public nuScenes v1.0 release (Caesar et al., CVPR 2020), rounded to four digits;
beam elevations are those of the Velodyne HDL-32E data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridgeta_core.geometry.transforms import Matrix, rigid
from bridgeta_core.utils.arrays import Floats

IMAGE_SIZE = (1600, 900)
LIDAR_CHANNEL = "LIDAR_TOP"
LIDAR_TRANSLATION = (0.9437, 0.0, 1.8402)
LIDAR_ROTATION = (0.7078, -0.0065, 0.0106, -0.7063)
LIDAR_AZIMUTHS = 1080
LIDAR_ELEVATIONS = np.deg2rad(-30.67 + np.arange(32) * (41.34 / 31))
LIDAR_PERIOD_US = 50_000
LIDAR_RANGE = (0.9, 100.0)
# Where a sweep begins and ends, in the ego frame. It turns clockwise. Cameras are triggered as the sweep passes the
# middle of their view, so the offsets of their stamps show where it is when (see `sweep_delay`).
SWEEP_SEAM = np.deg2rad(104.8)
KEYFRAME_PERIOD_US = 500_000
CAMERA_FRAMES_PER_KEYFRAME = 6


def sweep_delay(azimuth: Floats) -> Floats:
    """Compute the seconds between a sweep's stamp and when it passed an azimuth of the ego frame (radians).

    They lie in [-0.05, 0).
    """
    turned = np.mod(SWEEP_SEAM - azimuth, 2 * np.pi) / (2 * np.pi)
    return np.asarray((turned - 1) * (LIDAR_PERIOD_US / 1e6))


@dataclass(frozen=True)
class CameraFacts:
    """One camera: focal length and principal point in pixels of 1600x900, pose in the ego frame (metres; w, x, y,
    z), and the offset of its keyframe stamp from the LiDAR's in microseconds.
    """

    channel: str
    focal: float
    centre: tuple[float, float]
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    offset_us: int

    @property
    def ego_T_cam(self) -> Matrix:
        """4x4 pose of the optical frame."""
        return rigid(self.translation, self.rotation)

    def intrinsics(self, width: int, height: int) -> Matrix:
        """Compute 3x3 intrinsics at another image size.

        Resizing keeps the image's corners, not its pixel centres, in place.
        """
        sx, sy = width / IMAGE_SIZE[0], height / IMAGE_SIZE[1]
        cx, cy = self.centre
        return np.array(
            [
                [self.focal * sx, 0.0, (cx + 0.5) * sx - 0.5],
                [0.0, self.focal * sy, (cy + 0.5) * sy - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )


CAMERAS: tuple[CameraFacts, ...] = (
    CameraFacts(
        "CAM_FRONT",
        1266.4172,
        (816.2670, 491.5071),
        (1.7008, 0.0159, 1.5110),
        (0.4998, -0.5030, 0.4998, -0.4974),
        -35491,
    ),
    CameraFacts(
        "CAM_FRONT_RIGHT",
        1260.8474,
        (807.9682, 495.3344),
        (1.5508, -0.4934, 1.4957),
        (0.2060, -0.2027, 0.6825, -0.6714),
        -27612,
    ),
    CameraFacts(
        "CAM_BACK_RIGHT",
        1259.5137,
        (807.2529, 501.1958),
        (1.0149, -0.4806, 1.5624),
        (0.1228, -0.1324, -0.7004, 0.6905),
        -20058,
    ),
    CameraFacts(
        "CAM_BACK", 809.2210, (829.2196, 481.7784), (0.0283, 0.0035, 1.5791), (0.5038, -0.4974, -0.4942, 0.5045), -10426
    ),
    CameraFacts(
        "CAM_BACK_LEFT",
        1256.7415,
        (792.1126, 492.7758),
        (1.0357, 0.4848, 1.5910),
        (0.6924, -0.7032, -0.1165, 0.1120),
        -528,
    ),
    CameraFacts(
        "CAM_FRONT_LEFT",
        1272.5979,
        (826.6155, 479.7517),
        (1.5239, 0.4946, 1.5093),
        (0.6757, -0.6736, 0.2121, -0.2112),
        -43107,
    ),
)

CAMERA_OF = {camera.channel: camera for camera in CAMERAS}
"""The cameras by channel."""

# (name, traffic keeps to the right)
LOCATIONS: tuple[tuple[str, bool], ...] = (
    ("boston-seaport", True),
    ("singapore-onenorth", False),
    ("singapore-hollandvillage", False),
    ("singapore-queenstown", False),
)

CATEGORIES: tuple[tuple[str, str], ...] = (
    ("human.pedestrian.adult", "Adult subcategory."),
    ("human.pedestrian.child", "Child subcategory."),
    ("human.pedestrian.wheelchair", "Wheelchairs."),
    ("human.pedestrian.stroller", "Strollers."),
    ("human.pedestrian.personal_mobility", "Small electric or self-propelled vehicles with an upright rider."),
    ("human.pedestrian.police_officer", "Police officer."),
    ("human.pedestrian.construction_worker", "Construction worker."),
    ("animal", "All animals."),
    ("vehicle.car", "Vehicle designed primarily for personal use."),
    ("vehicle.motorcycle", "Motorised two-wheeler."),
    ("vehicle.bicycle", "Human-powered or electric two-wheeler."),
    ("vehicle.bus.bendy", "Bendy bus subcategory."),
    ("vehicle.bus.rigid", "Rigid bus subcategory."),
    ("vehicle.truck", "Vehicles primarily designed to haul cargo."),
    ("vehicle.construction", "Vehicles primarily designed for construction."),
    ("vehicle.emergency.ambulance", "All types of ambulances."),
    ("vehicle.emergency.police", "All types of police vehicles."),
    ("vehicle.trailer", "Any vehicle trailer."),
    ("movable_object.barrier", "Temporary road barrier."),
    ("movable_object.trafficcone", "All types of traffic cone."),
    ("movable_object.pushable_pullable", "Objects that a pedestrian may push or pull."),
    ("movable_object.debris", "Movable object that is left on the drivable surface."),
    ("static_object.bicycle_rack", "Area or device intended to park or secure bicycles."),
)

ATTRIBUTES: tuple[tuple[str, str], ...] = (
    ("vehicle.moving", "Vehicle is moving."),
    ("vehicle.stopped", "Vehicle is stationary with an intent to move."),
    ("vehicle.parked", "Vehicle is stationary with no immediate intent to move."),
    ("cycle.with_rider", "There is a rider on the bicycle or motorcycle."),
    ("cycle.without_rider", "There is no rider on the bicycle or motorcycle."),
    ("pedestrian.sitting_lying_down", "The human is sitting or lying down."),
    ("pedestrian.standing", "The human is standing."),
    ("pedestrian.moving", "The human is moving."),
)

# (token, level, description, upper bound of the visible share)
VISIBILITIES: tuple[tuple[str, str, str, float], ...] = (
    ("1", "v0-40", "visibility of whole object is between 0 and 40%", 0.4),
    ("2", "v40-60", "visibility of whole object is between 40 and 60%", 0.6),
    ("3", "v60-80", "visibility of whole object is between 60 and 80%", 0.8),
    ("4", "v80-100", "visibility of whole object is between 80 and 100%", np.inf),
)
