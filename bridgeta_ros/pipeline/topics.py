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

# Words by which image_proc and drivers name streams of one camera: image_raw, image_rect_color, image_mono.
_COLOURLESS = frozenset({"mono", "grey", "gray"})
_RECTIFIED = frozenset({"rect", "rectified"})
_STREAM_WORDS = _COLOURLESS | _RECTIFIED | {"image", "raw", "color", "colour", "rgb", "bgr", "compressed"}

# Stages of a set in the live node, each with a topic ~/latency/<stage>; total is from stamp to publish.
LATENCIES = ("transport", "wait", "decode", "preprocess", "network", "encode", "publish", "total")


@dataclass(frozen=True)
class CameraTopic:
    """A camera of a bag or graph: its name, its image topic and type, and its CameraInfo topic (None without one)."""

    name: str
    image: str
    msgtype: str
    info: str | None
    others: tuple[str, ...] = ()  # further image topics of this camera, which are not used

    @property
    def rectified(self) -> bool:
        """Whether its topic is named like rectified images, whose camera model is P without distortion."""
        return is_rectified(self.image)


def to_image_topic(channel: str) -> str:
    """Return the topic of a nuScenes camera channel's JPEGs, as image_transport names it."""
    return f"/{channel.lower()}/image/compressed"


def to_info_topic(channel: str) -> str:
    """Return the topic of a nuScenes camera channel's CameraInfo, the sibling of its base image topic."""
    return f"/{channel.lower()}/camera_info"


def _strip_transport(topic: str) -> str:
    """Return the base topic of an image_transport: `/front/image` of `/front/image/compressed`."""
    return re.sub(r"/(compressed|compressedDepth|zstd)$", "", topic)


def _split_words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


def is_rectified(topic: str) -> bool:
    """Return whether a topic is named like rectified images: `/front/image_rect`, `/front/rect/image`."""
    parent, _, last = _strip_transport(topic).rpartition("/")
    words = _split_words(last)
    if "raw" in words and "rect" not in words:
        return False
    return not _RECTIFIED.isdisjoint([*words, *_split_words(parent.rpartition("/")[2])])


def is_depth(topic: str, encoding: str) -> bool:
    """Return whether images are depths, by topic and by encoding or `format` of a message (empty if unknown)."""
    encoding = encoding.partition(";")[0].strip()
    named = "depth" in _split_words(topic)
    return topic.endswith("/compressedDepth") or encoding in ("16UC1", "32FC1") or (named and encoding == "mono16")


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


def find_info(image: str, topics: Mapping[str, str]) -> str | None:
    """Return the CameraInfo topic beside an image topic, as image_transport lays them out."""
    base = _strip_transport(image)
    candidates = (f"{base}/camera_info", f"{_namespace(base)}/camera_info")
    return next((c for c in candidates if topics.get(c) == CAMERA_INFO), None)


def group_streams(images: Iterable[str], topics: Mapping[str, str]) -> list[list[str]]:
    """Group image topics by camera: those that share a CameraInfo, or a name but for image_proc's words, are one's."""
    groups: list[tuple[set[str], list[str]]] = []
    for image in sorted(images):
        namespace, _, last = _strip_transport(image).rpartition("/")
        keys = {f"{namespace}/{'_'.join(_find_distinct_words(last))}", find_info(image, topics) or image}
        same = [group for group in groups if not keys.isdisjoint(group[0])]
        groups = [group for group in groups if group not in same]
        groups.append(
            (keys.union(*(k for k, _ in same)), [*(member for _, members in same for member in members), image])
        )
    return [members for _, members in groups]


def _find_distinct_words(last: str) -> list[str]:
    return [word for word in _split_words(last) if word not in _STREAM_WORDS]


def find_cameras(
    topics: Mapping[str, str],
    chosen: Sequence[str] = (),
    need_info: bool = True,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> list[CameraTopic]:
    """Find the cameras among `topics` (name -> message type), in topic order.

    A camera is an Image or CompressedImage topic with a CameraInfo beside it, as image_transport lays them out. Of
    several image topics beside one CameraInfo a single one is taken: one in the size of the CameraInfo (as far as
    `sizes`, by topic, says) before others, image_raw before rectified and grey ones, these before names of other kinds
    (image_thumb), compressed before raw. `chosen` restricts and orders the cameras, by name or topic. Without
    `need_info` image topics without a CameraInfo count too (for a calibration file).

    Raises BridgeTAError when there is no camera, and for a choice that does not exist.
    """
    images = sorted(t for t, kind in topics.items() if kind in (COMPRESSED, RAW))
    if not images:
        kinds = ", ".join(sorted(set(topics.values()))) or "nothing"
        raise BridgeTAError(f"no camera topics (it holds {kinds})", fix=f"Image topics are of {COMPRESSED} or {RAW}")

    def rank(image: str) -> tuple[bool | str, ...]:
        last = _strip_transport(image).rpartition("/")[2]
        words = set(_split_words(last))
        size, expected = (sizes or {}).get(image), (sizes or {}).get(find_info(image, topics) or "")
        return (
            size is not None and expected is not None and size != expected,
            bool(_find_distinct_words(last)),
            not words.isdisjoint(_COLOURLESS),
            is_rectified(image),
            "color" not in words and is_rectified(image),  # image_proc's image_rect is grey beside image_rect_color
            topics[image] == RAW,
            image,
        )

    by_image = {image: find_info(image, topics) for image in images}
    usable: dict[str, tuple[str, ...]] = {}  # the other streams of the camera by the image topic that is taken
    for streams in group_streams(images, topics):
        taken = [image for image in streams if not {image, _strip_transport(image)}.isdisjoint(chosen)]
        calibrated = [image for image in streams if not need_info or by_image[image] is not None]
        if calibrated:
            taken = taken or [min(calibrated, key=rank)]
        # Of one base topic the best, but the very topic that was named before another of its transports.
        ranked = sorted(taken, key=lambda image: (image not in chosen, rank(image)), reverse=True)
        for image in {_strip_transport(image): image for image in ranked}.values():
            usable[image] = tuple(other for other in streams if other not in taken)
    if not usable:
        raise BridgeTAError(
            f"no CameraInfo beside {', '.join(images)}",
            fix="Give the cameras' calibration as a file: --calibration rig.yaml",
        )
    ordered = sorted(usable)
    cameras = [
        CameraTopic(name, image, topics[image], by_image[image], usable[image])
        for name, image in zip(_name_topics(ordered), ordered, strict=True)
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
    words = _split_words(name)
    distinct = [word for word in words if word not in _STREAM_WORDS | {"cam", "camera"}]
    return " ".join(distinct or words)


def match_names(available: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Map each wanted camera name to the available one that means the same, where that is unambiguous."""
    by_normalised: dict[str, list[str]] = {}
    for name in available:
        by_normalised.setdefault(normalise_name(name), []).append(name)
    exact = {name for names in by_normalised.values() for name in names}
    matches = {name: [name] if name in exact else by_normalised.get(normalise_name(name), []) for name in wanted}
    return {name: candidates[0] for name, candidates in matches.items() if len(candidates) == 1}


def order_cameras(cameras: Sequence[CameraTopic], wanted: Sequence[str]) -> list[CameraTopic]:
    """Order cameras for a network that was trained with the cameras `wanted`.

    If each wanted one is there by name, return exactly those in that order; otherwise return all as they are, since
    the network takes any number of cameras.
    """
    by_name = {camera.name: camera for camera in cameras}
    matches = match_names(by_name, wanted)
    return [by_name[matches[name]] for name in wanted] if len(matches) == len(wanted) else list(cameras)
