"""The cameras of a bag: which image topics are used, what is passed over, and their calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgeta_core.geometry.image_header import read_header, to_bytes
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_ros.bags.io import BagReader, describe_conversion
from bridgeta_ros.pipeline import topics
from bridgeta_ros.pipeline.calibration import RigReader, select_cameras
from bridgeta_ros.pipeline.images import RawImage, image_from_message
from bridgeta_ros.pipeline.topics import CameraTopic


@dataclass(frozen=True)
class BagCameras:
    """The cameras to replay and their calibration, in the order of the network's input."""

    topics: list[CameraTopic]
    rig: Rig
    remarks: list[str]  # what was passed over, for the user


def choose_cameras(
    bag: BagReader,
    chosen: Sequence[str] = (),
    calibration: Path | None = None,
    base_frame: str = "base_link",
    wanted: Sequence[str] = (),
) -> BagCameras:
    """Choose the cameras of a bag and calibrate them from its CameraInfo and TF, or from the file `calibration`.

    `chosen` are names or topics. Without them these are all cameras that have images and, with a file, stand in it; if
    the `wanted` cameras of the network are among them, these alone. Depths, topics without messages and second streams
    of a camera are passed over with a remark.

    Raises BridgeTAError when no camera is left, and for a camera that cannot be calibrated.
    """
    file = Rig.load(calibration) if calibration is not None else None
    streams = _Streams(bag, chosen)
    try:
        cameras = topics.find_cameras(streams.usable, chosen, need_info=file is None, sizes=streams.sizes)
    except BridgeTAError as error:
        raise _explain_absence(bag, streams, error) from error
    remarks = _describe_unused(bag, streams, cameras, need_info=file is None) if not chosen else []
    if not chosen:
        if file is not None:
            named = topics.match_names(file.names, (camera.name for camera in cameras))
            lacking = [camera.name for camera in cameras if camera.name not in named]
            if lacking and named:
                remarks.append(f"{calibration} has no camera {join_first(lacking)}: replayed without")
            cameras = [camera for camera in cameras if camera.name in named] or cameras
        cameras, remark = _order_cameras(cameras, wanted)
        remarks += remark
    names = [camera.name for camera in cameras]
    return BagCameras(
        cameras, read_rig(bag, cameras, base_frame) if file is None else select_cameras(names, file), remarks
    )


class _Streams:
    """The image topics of a bag by what their first message shows."""

    def __init__(self, bag: BagReader, chosen: Sequence[str]) -> None:
        self.sizes: dict[str, tuple[int, int]] = {}
        self.silent: list[str] = []
        self.depth: list[str] = []
        for topic, kind in sorted(bag.topics.items()):
            if kind not in (topics.COMPRESSED, topics.RAW, topics.CAMERA_INFO):
                continue
            silent = bag.count([topic]) == 0 or next(bag.raw({topic}), None) is None
            message = None if silent else bag.first(topic)
            if kind == topics.CAMERA_INFO:
                if message is not None:
                    self.sizes[topic] = _read_info_size(message)
                continue
            encoding = ""
            if message is not None:
                encoding, size = _read_image(message)
                self.sizes.update({topic: size} if size is not None else {})
            if topics.is_depth(topic, encoding) and topic not in chosen:
                self.depth.append(topic)
            elif silent:
                self.silent.append(topic)
        unused = {*self.silent, *self.depth}
        self.usable = {topic: kind for topic, kind in bag.topics.items() if topic not in unused}


def _read_info_size(info: Any) -> tuple[int, int]:
    """Return the size of the images that a CameraInfo is for: of its region of interest, after binning."""
    width, height = (
        (info.roi.width, info.roi.height) if info.roi.width and info.roi.height else (info.width, info.height)
    )
    return int(width) // max(1, int(info.binning_x)), int(height) // max(1, int(info.binning_y))


def _read_image(message: Any) -> tuple[str, tuple[int, int] | None]:
    """Return encoding or format of an image and, unless its header is broken, its size."""
    image = image_from_message(message)
    if isinstance(image, RawImage):
        return image.encoding, (image.width, image.height)
    try:
        header = read_header(to_bytes(image.data))
    except BridgeTAError:  # it is met and counted again where all images are used
        return image.format, None
    return image.format, (header.width, header.height)


def _explain_absence(bag: BagReader, streams: _Streams, error: BridgeTAError) -> BridgeTAError:
    """Add to the error that no camera was found what was passed over."""
    reasons = []
    if streams.silent:
        reasons.append(f"without messages: {join_first(streams.silent)}")
    if streams.depth:
        reasons.append(f"depth: {join_first(streams.depth)}")
    foreign = {topic.encoding for topic in bag.foreign.values() if "image" in topic.msgtype.lower()}
    if foreign:
        reasons.append(f"images as {', '.join(sorted(foreign))}: {describe_conversion(foreign)}")
    what, fix = error.what, error.fix
    if reasons and not {topics.COMPRESSED, topics.RAW} & set(streams.usable.values()):
        what, fix = "no camera with images", None
    what = f"{what} ({'; '.join(reasons)})" if reasons else what
    return BridgeTAError(what, where=bag.path, fix=fix, exit_code=error.exit_code)


def _describe_unused(bag: BagReader, streams: _Streams, cameras: Sequence[CameraTopic], need_info: bool) -> list[str]:
    """Say which image topics are passed over, and why."""
    remarks = []
    used = {camera.image for camera in cameras}
    images = [topic for topic, kind in bag.topics.items() if kind in (topics.COMPRESSED, topics.RAW)]
    groups = topics.group_streams([image for image in images if image not in streams.depth], bag.topics)
    dead = [group[0] for group in groups if used.isdisjoint(group) and set(group) <= set(streams.silent)]
    idle = [topic for topic in streams.silent if topic not in dead]
    if dead:
        remarks.append(f"no message on {join_first(dead)}: replayed without these cameras")
    if idle:
        remarks.append(f"passed over, since they have no message: {join_first(idle)}")
    if streams.depth:
        remarks.append(f"passed over as depth: {join_first(streams.depth)}")
    remarks += [
        f"{camera.name}: {camera.image} is used, not {join_first(camera.others)}" for camera in cameras if camera.others
    ]
    without = [image for image in images if image in streams.usable and topics.find_info(image, bag.topics) is None]
    if without and need_info:
        remarks.append(f"passed over, since there is no CameraInfo beside them: {join_first(without)}")
    return remarks


def _order_cameras(cameras: list[CameraTopic], wanted: Sequence[str]) -> tuple[list[CameraTopic], list[str]]:
    """Put cameras into the network's order; say which it knows and lacks, and which it does not know."""
    ordered = topics.order_cameras(cameras, wanted)
    names = [camera.name for camera in cameras]
    matches = topics.match_names(names, wanted)
    missing = [name for name in wanted if name not in matches]
    extra = [name for name in names if name not in matches.values()]
    if missing and len(missing) == len(wanted):
        return ordered, [
            f"none of the weights' cameras ({join_first(missing, 6)}) is here by name; "
            f"the {len(names)} cameras are used in the order {join_first(names, 6)}"
        ]
    remarks = []
    if missing:
        remarks.append(f"using {len(wanted) - len(missing)} of {len(wanted)} cameras: no {join_first(missing, 6)}")
        if extra:
            remarks.append(f"the weights do not know {join_first(extra, 6)}: used beside the others")
    if extra and not missing and wanted:
        remarks.append(f"the weights do not know {join_first(extra, 6)}: replayed without (--cameras chooses others)")
    return ordered, remarks


def read_rig(bag: BagReader, cameras: Sequence[CameraTopic], base_frame: str) -> Rig:
    """Read the calibration of some cameras of a bag, from as much of the bag as is needed.

    Raises BridgeTAError for a camera without CameraInfo and for a missing link of TF.
    """
    by_info = {camera.info: camera.name for camera in cameras if camera.info is not None}
    without = [camera.image for camera in cameras if camera.info is None]
    if without:
        raise BridgeTAError(
            f"no CameraInfo beside {', '.join(without)}", where=bag.path, fix="Give --calibration rig.yaml"
        )
    names, rectified = [camera.name for camera in cameras], {c.name: True for c in cameras if c.rectified}
    reader, silent = RigReader(names, base_frame, rectified), set(by_info)
    for topic, _, data in bag.raw({*by_info, *bag.find_transforms()}):
        try:
            message = bag.decode(topic, data)
        except BridgeTAError as error:
            bag.remark(f"passed over: {error.what}")
            continue
        if topic.topic in by_info:
            silent.discard(topic.topic)
            reader.add_info(by_info[topic.topic], message)
        else:
            reader.tree.add_message(message, static=topic.topic == topics.TF_STATIC)
        if reader.complete:
            break
    if silent:
        listed = ", ".join(topic for topic in by_info if topic in silent)
        raise BridgeTAError(f"no message on {listed}", where=bag.path, fix="Give --calibration rig.yaml")
    try:
        rig = reader.build_rig()
    except BridgeTAError as error:
        raise BridgeTAError(f"{error.where}: {error.what}", where=bag.path, fix=error.fix) from error
    for remark in reader.remarks:
        bag.remark(remark)
    return rig
