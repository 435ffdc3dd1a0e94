"""Hostile inputs for `bench/fuzz.py`: seeded changes of good images, messages, rig files and bags.

A kind of input is a function of (index, random generator) that makes one case; index 0 is the unchanged input. A case
is a function that hands the input to the product, as replay and node do.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from rosbags.typesys import Stores, get_typestore

from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_ros.bags.io import create_bag
from bridgeta_ros.bags.replay import ReplaySettings, replay
from bridgeta_ros.bags.storage.definitions import Decoder
from bridgeta_ros.bags.storage.topic import RecordedTopic
from bridgeta_ros.node.calibration import LiveCalibration
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.calibration import RigReader
from bridgeta_ros.pipeline.images import EncodedImage, RawImage, decode_image, image_from_message
from bridgeta_ros.pipeline.pipeline import BevPipeline

Case = Callable[[], object]

SIZE = WIDTH, HEIGHT = 640, 360
STAMP = 1_700_000_000_000_000_000
MAKE = messages.RosbagsFactory(get_typestore(Stores.ROS2_HUMBLE))
AHEAD = rigid((1.5, 0, 1.6), (0.5, -0.5, 0.5, -0.5))
K = np.array([[400.0, 0, 319.5], [0, 400.0, 179.5], [0, 0, 1]])
CAMERA = Camera("front", *SIZE, K, AHEAD)
NUMBERS = (
    0,
    1,
    -1,
    2,
    255,
    65_535,
    2**31 - 1,
    2**32 - 1,
    -(2**31),
    1e-300,
    1e300,
    -1e9,
    3.7,
    float("nan"),
    float("inf"),
)


class WithoutNetwork(Runtime):
    """The runtime of the shipped weights, whose network says nothing: what is measured is all before it."""

    def infer(self, images: Any, rig: Rig) -> Any:
        return np.zeros((6, *self.grid.shape), np.float32)

    def warm_up(self, rig: Rig) -> None:
        pass


@cache
def load_runtime() -> WithoutNetwork:
    return WithoutNetwork("tiny", "cpu")


@cache
def draw_picture() -> np.ndarray:
    """Draw a picture with as much detail as a street."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 256, (36, 64, 3), dtype=np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8)


def choose(rng: Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def mutate(rng: Generator, data: bytes, head: int = 128) -> bytes:
    """Change bytes in one to six ways; half of the changes are among the first `head` bytes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 7)):
        end = len(changed) if rng.random() < 0.5 else min(head, len(changed))
        start, count = int(rng.integers(max(1, end))), int(rng.choice([1, 1, 2, 4, 16, 300, 5000]))
        piece = slice(start, start + count)
        match int(rng.integers(9)):
            case 0:
                changed[start : start + 1] = bytes([changed[start] ^ 1 << int(rng.integers(8))]) if changed else b""
            case 1:
                changed[piece] = rng.bytes(len(changed[piece]))
            case 2:
                changed[piece] = bytes([choose(rng, (0, 255))]) * len(changed[piece])
            case 3:
                del changed[piece]
            case 4:
                changed[start:start] = rng.bytes(count)
            case 5:
                changed[start:start] = changed[piece] * int(rng.integers(1, 20))
            case 6:
                del changed[int(rng.integers(len(changed) + 1)) :]
            case 7:
                changed += choose(rng, (bytes(count), rng.bytes(count)))
            case _:
                kind = choose(rng, (">H", "<H", ">I", "<I"))
                number = choose(rng, (0, 1, 2, 255, 2**15, 2**16 - 1, 10_000)) if kind[1] == "H" else 2**31 - 1
                changed[start : start + struct.calcsize(kind)] = struct.pack(kind, number)
    return bytes(changed)


# Images


@cache
def encode(suffix: str, options: tuple[int, ...] = ()) -> bytes:
    return cv2.imencode(suffix, draw_picture(), options)[1].tobytes()


_JPEGS = (
    (),
    (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    (cv2.IMWRITE_JPEG_RST_INTERVAL, 7),
    (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)


def make_jpeg(index: int, rng: Generator) -> Case:
    """Change a JPEG, or repeat its segments and scans."""
    data = encode(".jpg", choose(rng, _JPEGS) if index else ())
    if index % 5 == 1:
        marker = choose(
            rng, (b"\xff\xda", b"\xff\xc4", b"\xff\xdb", b"\xff\xc0", b"\xff\xc2", b"\xff\xe0", b"\xff\xd9")
        )
        start = max(data.find(marker), 2)
        data = (
            data[:start] + data[start : start + int(rng.integers(2, 3000))] * int(rng.integers(2, 300)) + data[start:]
        )
    elif index % 5 == 2:  # another process or size in the frame header
        start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        sizes = struct.pack(">HH", *rng.choice([0, 1, HEIGHT, WIDTH, 30_000, 65_535], 2))
        frame = bytes([0xFF, int(rng.choice([*range(0xC0, 0xD0)]))]) + data[start + 2 : start + 5]
        data = data[:start] + frame + choose(rng, (sizes, data[start + 5 : start + 9])) + data[start + 9 :]
    return partial(decode, mutate(rng, data, 700) if index and rng.random() < 0.8 else data, rng)


@cache
def make_bomb() -> bytes:
    """Compress 30 MB of zeros."""
    return zlib.compress(bytes(30_000_000))


def make_png(index: int, rng: Generator) -> Case:
    """Change a PNG with its checksums corrected, so that the changes reach the decoder, or not."""
    data, chunks, position = encode(".png"), [], 8
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += 12 + size
    if index % 4 == 1:
        chunks = [(k, mutate(rng, body, 13) if rng.random() < 0.3 else body) for k, body in chunks]
    elif index % 4 == 2:
        kind = choose(rng, (b"zTXt", b"iCCP", b"eXIf", b"acTL", b"PLTE", b"IDAT", b"IHDR", b"IEND", rng.bytes(4)))
        body = choose(rng, (b"", b"x\0\0" + make_bomb(), make_bomb()))
        chunks[1:1] = [(kind, body)] * int(rng.choice([1, 1, 1, 5000, 30_000] if len(body) < 50 else [1, 2]))
    elif index % 4 == 3:
        sizes = struct.pack(">II", *rng.choice([0, 1, HEIGHT, WIDTH, 2**31 - 1], 2))
        kinds = bytes(int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16])) for _ in range(5))
        chunks[0] = b"IHDR", choose(rng, (sizes, chunks[0][1][:8])) + choose(rng, (kinds, chunks[0][1][8:]))
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    data = data[:8] + b"".join(packed)
    return partial(decode, mutate(rng, data) if index and rng.random() < 0.3 else data, rng)


def make_webp(index: int, rng: Generator) -> Case:
    """Change a WebP, lossy or not, simple or extended."""
    data = encode(".webp", choose(rng, ((), (cv2.IMWRITE_WEBP_QUALITY, 60))))
    if index % 3 == 1:
        canvas = b"".join(struct.pack("<I", int(n))[:3] for n in rng.choice([0, HEIGHT - 1, WIDTH - 1, 16_383], 2))
        extended = b"VP8X" + struct.pack("<I", 10) + rng.bytes(1) + bytes(3) + canvas
        data = data[:12] + extended + data[12:]
    return partial(decode, mutate(rng, data, 60) if index else data, rng)


def make_bmp(index: int, rng: Generator) -> Case:
    """Change a BMP, mostly in its header."""
    data = encode(".bmp")
    return partial(decode, mutate(rng, data, 60) if index else data, rng)


def decode(data: bytes, rng: Generator) -> object:
    return decode_image(EncodedImage(data, "jpeg"), SIZE, int(rng.choice([1, 2, 4])))


_ENCODINGS = (
    "rgb8",
    "bgr8",
    "rgba8",
    "bgra16",
    "mono8",
    "mono16",
    "bayer_rggb8",
    "bayer_gbrg16",
    "yuv422",
    "yuyv",
    "nv12",
    "nv21",
)
_ODD = (
    "8UC1",
    "8UC3",
    "8UC4",
    "8UC2",
    "16UC1",
    "32FC1",
    "64FC9",
    "8UC0",
    "8UC" + "9" * 5000,
    "",
    "h264",
    "nv24",
    "jpeg",
)


def make_raw(index: int, rng: Generator) -> Case:
    """Make raw images of any encoding, whose sizes, steps and data agree or not."""
    encoding = choose(rng, (*_ENCODINGS, *_ODD)) if index else "rgb8"
    width, height = (
        SIZE if rng.random() < 0.7 or not index else rng.choice([0, 1, 3, 641, 2**31 - 1, 2**32 - 1], 2).tolist()
    )
    step = WIDTH * int(rng.integers(1, 9)) + int(rng.integers(-3, 64)) if index else 3 * WIDTH
    step = choose(rng, (step, step, step, 0, 1, 2**32 - 1)) if index else step
    rows = HEIGHT if index == 0 else int(rng.choice([HEIGHT, HEIGHT * 3 // 2, 2 * HEIGHT, 1, 0]))
    data = bytes(min(step * rows + int(index and rng.integers(-5, 5)), 10_000_000)) if step * rows > 5 else b""
    image = RawImage(height, width, encoding, step, data, bool(rng.integers(2)))
    size = SIZE if rng.random() < 0.7 else (width, height)
    return lambda: decode_image(image, size)


# Calibration


def draw_numbers(rng: Generator, values: Any, share: float) -> np.ndarray:
    """Replace a share of numbers by extreme ones, or by themselves times a factor."""
    result = np.array(values, dtype=np.float64)
    for i in np.flatnonzero(rng.random(result.size) < share):
        factor = choose(rng, (-1, 0.5, 1.001, 1e-3, 1e3))
        result.flat[i] = choose(rng, NUMBERS) if rng.random() < 0.6 else result.flat[i] * factor
    return result


def make_info(index: int, rng: Generator) -> Case:
    """Change a CameraInfo; its camera then gets an image of the size that it claims."""
    info = messages.make_camera_info(MAKE, CAMERA, STAMP, "front")
    if index:
        share = choose(rng, (0, 0.05, 0.3))
        info.k, info.p, info.r = (draw_numbers(rng, values, share) for values in (info.k, info.p, info.r))
        info.d = draw_numbers(rng, rng.normal(0, 0.1, choose(rng, (0, 4, 5, 8, 12, 14, 3, 1000))), share)
        info.distortion_model = choose(rng, ("plumb_bob", "rational_polynomial", "equidistant", "", "x" * 10_000))
        if rng.random() < 0.5:
            info.width, info.height = (int(v) for v in rng.choice([0, 1, 10, 360, 640, 50_000, 2**32 - 1], 2))
        if rng.random() < 0.3:
            info.binning_x, info.binning_y = (int(v) for v in rng.choice([0, 1, 2, 7, 2**32 - 1], 2))
            info.roi.width, info.roi.height = (int(v) for v in rng.choice([0, 1, 100, 2**32 - 1], 2))
            info.roi.x_offset = int(rng.choice([0, 10, 2**32 - 1]))
        info.header.frame_id = choose(rng, ("front", "front", "front", "/front", "", "nowhere"))
    return partial(calibrate, [info], [make_transforms(0, rng)])


def make_transforms(index: int, rng: Generator) -> Any:
    links = [(STAMP, "base_link", "front", AHEAD)]
    names = ["base_link", "front", "map", "odom", "", "/front", "a" * 1000, *(f"f{i}" for i in range(20))]
    for _ in range(int(rng.choice([1, 3, 10, 100, 1000])) if index else 0):
        pose = rigid(rng.normal(0, 1, 3), rng.normal(0, 1, 4))
        links.append((STAMP, choose(rng, names), choose(rng, names), pose))
    message = messages.make_tf_message(MAKE, links)
    for entry in message.transforms if index else ():
        t, q = entry.transform.translation, entry.transform.rotation
        if rng.random() < 0.3:
            t.x, q.w = draw_numbers(rng, (t.x, q.w), 0.7).tolist()
    return message


def make_tf(index: int, rng: Generator) -> Case:
    """Make transforms with loops, long chains, numbers that are none and names of all kinds."""
    info = messages.make_camera_info(MAKE, CAMERA, STAMP, "front")
    return partial(calibrate, [info], [make_transforms(index, rng)])


def calibrate(infos: Sequence[Any], transforms: Sequence[Any]) -> object:
    """Take messages as the node and as the replay do, and prepare a set of the calibrated camera."""
    live, reader = LiveCalibration(["front"], "base_link", 1), RigReader(["front"])
    for message in transforms:
        live.add_tf(message, static=True)
        reader.tree.add_message(message, static=True)
    for info in infos:
        live.add_info("front", info)
        reader.add_info("front", info)
    describe = live.problem, live.remark, reader.remarks
    rig = reader.build_rig()
    prepare_set(rig)
    return describe


def prepare_set(rig: Rig) -> None:
    """Take a grey image of each camera to the network; none of more than 2 MB is sent."""
    with BevPipeline(load_runtime(), rig) as pipeline:
        cameras = [c for c in rig.cameras if c.width * c.height <= 2_000_000]
        pictures = {c.name: RawImage(c.height, c.width, "mono8", c.width, bytes(c.width * c.height)) for c in cameras}
        pipeline.prepare(pictures, STAMP)


_YAML = """cameras:
  front: {width: 640, height: 360, intrinsics: [[400.0, 0, 319.5], [0, 400.0, 179.5], [0, 0, 1]],
    translation: [1.5, 0.0, 1.6], rotation: [0.5, -0.5, 0.5, -0.5], distortion: [-0.1, 0.01, 0.0, 0.0, 0.0]}
  back:
    width: 640
    height: 360
    intrinsics:
    - [400.0, 0, 319.5]
    - [0, 400.0, 179.5]
    - [0, 0, 1]
    translation: [-1.0, 0.0, 1.6]
    rotation: [0.5, -0.5, -0.5, 0.5]
    distortion: [0.1, 0.0, 0.0, 0.0]
    distortion_model: equidistant
    crop_bottom: 300
"""
_WORDS = (
    "401.0",
    "0.25",
    ".nan",
    ".inf",
    "-1",
    "0",
    "1e400",
    "9" * 5000,
    "null",
    "yes",
    "'1'",
    "1,5",
    "[]",
    "{}",
    "[[[[]]]]",
    "!!python/none",
    "&a [*a, *a]",
)


def make_rig(index: int, rng: Generator, folder: Path) -> Case:
    """Change a rig file: words, lines, bytes, aliases that double, nesting without end."""
    text = _YAML.encode()
    if index % 3 == 1:
        words = _YAML.split(" ")
        for _ in range(rng.integers(1, 4)):
            words[int(rng.integers(len(words)))] = choose(rng, _WORDS) + choose(rng, ("", ",", "\n"))
        text = " ".join(words).encode()
    elif index % 3 == 2:
        lines = _YAML.splitlines(keepends=True)
        for _ in range(rng.integers(1, 4)):
            i, j = rng.integers(len(lines), size=2)
            lines[i : i + int(rng.integers(3))] = [
                lines[j].replace(choose(rng, "aehnorst"), choose(rng, ("", "x", ":")))
            ]
        text = "".join(lines).encode()
    elif index:
        depth = int(rng.choice([5, 30, 1000, 20_000]))
        doubling = "".join(
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]\n" for i in range(min(depth, 30))
        )
        hostile = choose(rng, (doubling, "[" * depth, "{a: " * depth, "- " * depth, "x" * 100_000))
        text = choose(rng, (hostile.encode(), _YAML.replace("640", hostile, 1).encode(), mutate(rng, text, 600)))
    path = folder / "rig.yaml"
    path.write_bytes(text)
    return lambda: prepare_set(Rig.load(path))


# Messages and bags


@cache
def list_messages() -> list[tuple[RecordedTopic, bytes]]:
    """Serialise a message of every type that is read."""
    grid = messages.make_occupancy_grid(MAKE, np.zeros((200, 200), np.int8), load_runtime().grid, STAMP, "base_link")
    found = {
        topics.COMPRESSED: messages.make_compressed_image(MAKE, encode(".jpg"), STAMP, "front"),
        topics.RAW: messages.make_rgb_image(MAKE, draw_picture(), STAMP, "front"),
        topics.CAMERA_INFO: messages.make_camera_info(MAKE, CAMERA, STAMP, "front"),
        topics.TF_MESSAGE: make_transforms(0, np.random.default_rng(0)),
        topics.OCCUPANCY_GRID: grid,
    }
    store = get_typestore(Stores.ROS2_HUMBLE)
    return [(RecordedTopic("/t", kind), bytes(store.serialize_cdr(m, kind))) for kind, m in found.items()]


def make_message(index: int, rng: Generator) -> Case:
    """Change the bytes of a serialised message, and use what comes out of it."""
    topic, data = choose(rng, list_messages()) if index else list_messages()[0]
    data = mutate(rng, data, 200) if index else data

    def use() -> object:
        message = DECODER.decode(topic, data)
        if topic.msgtype in (topics.COMPRESSED, topics.RAW):
            return decode_image(image_from_message(message), SIZE)
        if topic.msgtype == topics.CAMERA_INFO:
            return calibrate([message], [make_transforms(0, rng)])
        if topic.msgtype == topics.TF_MESSAGE:
            return calibrate([messages.make_camera_info(MAKE, CAMERA, STAMP, "front")], [message])
        return message

    return use


DECODER = Decoder({})


@cache
def write_bag(folder: Path) -> bytes:
    """Write a bag of three images of one camera, and return its data file."""
    with create_bag(folder / "good") as (bag, _):
        bag.add_topic("/front/image/compressed", topics.COMPRESSED)
        bag.add_topic("/front/camera_info", topics.CAMERA_INFO)
        bag.add_topic("/tf_static", topics.TF_MESSAGE)
        bag.write("/tf_static", STAMP, make_transforms(0, np.random.default_rng(0)))
        for ns in range(STAMP, STAMP + 3 * 83_000_000, 83_000_000):
            bag.write("/front/camera_info", ns, messages.make_camera_info(MAKE, CAMERA, ns, "front"))
            image = messages.make_compressed_image(MAKE, encode(".jpg")[:], ns, "front")
            bag.write("/front/image/compressed", ns, image)
    return (folder / "good" / "good.mcap").read_bytes()


def make_bag(index: int, rng: Generator, folder: Path) -> Case:
    """Change the data file of a bag, and replay it without its metadata."""
    path = folder / "in.mcap"
    data = write_bag(folder)
    path.write_bytes(mutate(rng, data, 4000) if index else data)

    def run() -> object:
        settings = ReplaySettings(overwrite=True, device="cpu")
        return replay(path, folder / "out", load_runtime(), settings, progress=False).used

    return run
