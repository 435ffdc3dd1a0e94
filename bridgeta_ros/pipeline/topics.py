"""Topic names: how cameras are found and named, and where results are published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridgeta_core.utils.errors import BridgeTAError

COMPRESSED = "sensor_msgs/msg/CompressedImage"
RAW = "sensor_msgs/msg/Image"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"
OCCUPANCY_GRID = "nav_msgs/msg/OccupancyGrid"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
FLOAT64 = "std_msgs/msg/Float64"

TF, TF_STATIC = "/tf", "/tf_static"
BEV = "/bev"
NAVIGATION = f"{BEV}/navigation"
BEV_IMAGE = f"{BEV}/image"
GROUND_TRUTH = f"{BEV}/ground_truth"
LOCAL_MAP = f"{BEV}/local_map"

# Stages of a set in the live node, each with a topic ~/latency/<stage>; total is from stamp to publish.
LATENCIES = ("transport", "wait", "decode", "preprocess", "network", "encode", "publish", "total")


@dataclass(frozen=True)
class CameraTopic:
    """A camera of a bag or graph: its name, its image topic and type, and its CameraInfo topic (None without one)."""

    name: str
    image: str
    msgtype: str
    info: str | None


def to_image_topic(channel: str) -> str:
    """Return the topic of a nuScenes camera channel's JPEGs, as image_transport names it."""
    return f"/{channel.lower()}/image/compressed"


def to_info_topic(channel: str) -> str:
    """Return the topic of a nuScenes camera channel's CameraInfo, the sibling of its base image topic."""
    return f"/{channel.lower()}/camera_info"


def _strip_transport(topic: str) -> str:
    """Return the base topic of an image_transport: `/front/image` of `/front/image/compressed`."""
    return topic.removesuffix("/compressed")


def _namespace(topic: str) -> str:
    return _strip_transport(topic).rpartition("/")[0]


def _name_topics(topics: Sequence[str]) -> list[str]:
    """Name topics by the shortest distinct endings of their namespaces: `front` of `/sensing/front/image`."""
    paths = [(_namespace(topic) or _strip_transport(topic)).strip("/").split("/") for topic in topics]
    for length in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [_strip_transport(topic).strip("/") for topic in topics]


def find_cameras(topics: Mapping[str, str], chosen: Sequence[str] = (), need_info: bool = True) -> list[CameraTopic]:
    """Find the cameras among `topics` (name -> message type), in topic order.

    A camera is an Image or CompressedImage topic with a CameraInfo beside it, as image_transport lays them out. Of a
    camera with both kinds the compressed one is taken. `chosen` restricts and orders the cameras, by name or topic.
    Without `need_info` image topics without a CameraInfo count too (for a calibration file).

    Raises BridgeTAError when there is no camera, and for a choice that does not exist.
    """
    images = sorted(t for t, kind in topics.items() if kind in (COMPRESSED, RAW))
    if not images:
        kinds = ", ".join(sorted(set(topics.values()))) or "nothing"
        raise BridgeTAError(f"no camera topics (it holds {kinds})", fix=f"Image topics are of {COMPRESSED} or {RAW}")
    by_base: dict[str, str] = {}
    for topic in images:
        if _strip_transport(topic) not in by_base or topics[topic] == COMPRESSED:
            by_base[_strip_transport(topic)] = topic

    def info(base: str) -> str | None:
        candidates = (f"{_namespace(base)}/camera_info", f"{base}/camera_info")
        return next((c for c in candidates if topics.get(c) == CAMERA_INFO), None)

    usable = [base for base in by_base if not need_info or info(base) is not None or by_base[base] in chosen]
    if not usable:
        raise BridgeTAError(
            f"no CameraInfo beside {', '.join(by_base.values())}",
            fix="Give the cameras' calibration as a file: --calibration rig.yaml",
        )
    cameras = [
        CameraTopic(name, by_base[base], topics[by_base[base]], info(base))
        for name, base in zip(_name_topics(usable), usable, strict=True)
    ]
    if not chosen:
        return cameras
    by_key = {key: camera for camera in cameras for key in (camera.name, _strip_transport(camera.image), camera.image)}
    missing = [choice for choice in chosen if choice not in by_key]
    if missing:
        raise BridgeTAError(
            f"no camera {', '.join(missing)}",
            fix=f"There are: {', '.join(camera.name for camera in cameras)}",
            exit_code=2,
        )
    return [by_key[choice] for choice in dict.fromkeys(chosen)]


def normalise_name(name: str) -> str:
    """Reduce a camera's name to what distinguishes it: `front` for `CAM_FRONT` and `camera/front`."""
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    distinct = [word for word in words if word not in ("cam", "camera", "image")]
    return " ".join(distinct or words)


def match_names(available: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Map each wanted camera name to the available one that means the same, where that is unambiguous."""
    by_normalised: dict[str, list[str]] = {}
    for name in available:
        by_normalised.setdefault(normalise_name(name), []).append(name)
    matches = {name: by_normalised.get(normalise_name(name), []) for name in wanted}
    return {name: candidates[0] for name, candidates in matches.items() if len(candidates) == 1}


def order_cameras(cameras: Sequence[CameraTopic], wanted: Sequence[str]) -> list[CameraTopic]:
    """Order cameras for a network that was trained with the cameras `wanted`.

    If each wanted one is there by name, return exactly those in that order; otherwise return all as they are, since
    the network takes any number of cameras.
    """
    by_name = {camera.name: camera for camera in cameras}
    matches = match_names(by_name, wanted)
    return [by_name[matches[name]] for name in wanted] if len(matches) == len(wanted) else list(cameras)
