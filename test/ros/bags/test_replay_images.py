"""What the images of a bag may be like, and how those that cannot be used are counted and named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fakes import SIZE, FakeRuntime, jpeg, write_bag

from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.bags.replay import replay
from bridgeta_ros.bags.report import write_report
from bridgeta_ros.pipeline import messages, topics

NOISE = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
WHOLE = cv2.imencode(".jpg", NOISE)[1].tobytes()
BROKEN = WHOLE[:7000] + bytes(1000) + WHOLE[8000:]
# Orientation 3: turned by 180 degrees.
EXIF = bytes.fromhex("ffe1002245786966000049492a0008000000010012010300010000000300000000000000")


def run(bag: Path):
    return replay(bag, bag.with_name("out"), FakeRuntime(), progress=False)


def read_grids(bag: Path) -> list[bytes]:
    with open_bag(bag) as reader:
        return [bag.decode(c, data).data.tobytes() for bag in [reader] for c, _, data in bag.raw({"/bev/divider"})]


@pytest.mark.parametrize(
    "data",
    [WHOLE + bytes(4096), WHOLE[:2] + EXIF + WHOLE[2:], WHOLE[:-2] + bytes(6) + WHOLE[-2:]],
    ids=["zeros behind", "turned by EXIF", "padded like a webcam's"],
)
def test_an_unusual_jpeg_gives_the_grids_of_its_pixels(tmp_path, data):
    for name, image in (("plain", WHOLE), ("unusual", data)):
        assert run(write_bag(tmp_path / name / "in", 2, image=lambda *_, image=image: image)).used == 2
    grids = [read_grids(tmp_path / name / "out") for name in ("plain", "unusual")]
    assert grids[0] == grids[1]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_other_formats_than_jpeg_are_replayed_and_reported(tmp_path, suffix):
    data = cv2.imencode(suffix, NOISE)[1].tobytes()
    assert run(write_bag(tmp_path / "in", 2, image=lambda *_: data)).used == 2
    write_report(tmp_path / "out", tmp_path / "in", tmp_path / "report.html", progress=False)


def test_damaged_images_are_counted_by_camera_and_reason(tmp_path, capfd):
    def image(cycle: int, name: str) -> bytes:
        return BROKEN if (cycle, name) in ((1, "cam_front"), (2, "cam_back"), (4, "cam_front")) else WHOLE

    summary = run(write_bag(tmp_path / "in", 6, image=image))
    assert (summary.used, summary.failed) == (3, 3)
    assert sorted(summary.failures.values()) == [1, 2]
    for reason, count in summary.failures.items():
        assert f"camera cam_{'front' if count == 2 else 'back'}: JPEG is damaged (Corrupt JPEG data: " in reason
    assert "Corrupt" not in "".join(capfd.readouterr())  # no complaint of the decoder's own


def test_an_enormous_image_is_refused_by_its_size(tmp_path):
    start = WHOLE.index(b"\xff\xc0") + 5
    bomb = WHOLE[:start] + (30_000).to_bytes(2, "big") * 2 + WHOLE[start + 4 :]
    bag = write_bag(tmp_path / "in", 2, image=lambda cycle, name: bomb if cycle else jpeg(9))
    summary = run(bag)
    assert (summary.used, summary.failed) == (1, 1)
    assert "image has 30000x30000 pixels, more than the 33,554,432" in next(iter(summary.failures))


@pytest.mark.parametrize(("encoding", "level"), [("8UC3", 77), ("8UC1", 50), ("8UC4", 77)])
def test_generic_encodings_are_read_as_bgr_or_grey(tmp_path, encoding, level):
    channels = int(encoding[-1])

    def make(factory, _, ns, frame):
        image = messages.make_rgb_image(factory, np.zeros((90, 160, 3), np.uint8), ns, frame)
        image.encoding, image.step = encoding, 160 * channels
        image.data = np.tile(np.array([50, 50, 131, 9][:channels], np.uint8), 90 * 160)
        return image

    write_bag(tmp_path / "in", 2, image=lambda *_: 0, make_image=make, image_type=topics.RAW, suffix="image_raw")
    run(tmp_path / "in")
    for values in map(np.frombuffer, read_grids(tmp_path / "out"), [np.int8] * 2):
        assert abs(int(values.max()) - 100 * level / 255) <= 1
