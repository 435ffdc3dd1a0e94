"""A film shows every set, in real time, and is whole or absent."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from bag_fakes import GRID, MS, FakeRuntime, jpeg, write_bag

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.replay import replay
from bridgeta_ros.bags.report import film, write_report

WRITER = cv2.VideoWriter


@pytest.fixture
def bags(tmp_path):
    truth = np.zeros((6, *GRID.shape), np.int8)
    brightness = lambda cycle, name: jpeg(30 * cycle + 40)  # noqa: E731
    write_bag(tmp_path / "in", 5, image=brightness, truth=truth, period=100 * MS)
    replay(tmp_path / "in", tmp_path / "out", FakeRuntime(), progress=False)
    return tmp_path


def read(path):
    capture = cv2.VideoCapture(str(path))
    pictures = []
    while (picture := capture.read())[0]:
        pictures.append(picture[1])
    return capture.get(cv2.CAP_PROP_FPS), pictures


def test_a_film_has_a_picture_of_every_set_in_real_time(bags):
    write_report(bags / "out", bags / "in", bags / "drive.mp4", progress=False)
    rate, pictures = read(bags / "drive.mp4")
    assert rate == pytest.approx(10, abs=0.1)
    assert len(pictures) == 5
    # In the middle of the first camera's image.
    assert [picture[150, 300].mean() for picture in pictures] == pytest.approx([40, 70, 100, 130, 160], abs=6)
    assert sorted(path.name for path in bags.iterdir()) == ["drive.mp4", "in", "out"]


def test_a_long_film_is_thinned(bags):
    write_report(bags / "out", bags / "in", bags / "drive.mp4", max_frames=2, progress=False)
    assert len(read(bags / "drive.mp4")[1]) == 2


def test_a_film_that_is_not_whole_is_an_error(bags, monkeypatch):
    class Short:
        """A writer on a disk that is full after three pictures."""

        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, *arguments):
            self._writer, self._count = WRITER(*arguments), 0

        def __getattr__(self, name):
            return getattr(self._writer, name)

        def write(self, picture):
            self._count += 1
            if self._count <= 3:
                self._writer.write(picture)

    monkeypatch.setattr(film.cv2, "VideoWriter", Short)
    with pytest.raises(BridgeTAError, match="could not be written as a whole"):
        write_report(bags / "out", bags / "in", bags / "drive.mp4", progress=False)
    assert sorted(path.name for path in bags.iterdir()) == ["in", "out"]


def test_a_full_disk_for_temporary_files_is_an_error(bags, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(film.Path, "write_bytes", fail)
    with pytest.raises(BridgeTAError, match=r"cannot be written here \(No space left.*TMPDIR"):
        write_report(bags / "out", bags / "in", bags / "drive.mp4", progress=False)
    assert sorted(path.name for path in bags.iterdir()) == ["in", "out"]


def test_an_opencv_without_the_codec_is_an_error(bags, monkeypatch):
    monkeypatch.setattr(film, "_CODEC", "none")
    with pytest.raises(BridgeTAError, match="cannot write VP9"):
        write_report(bags / "out", bags / "in", bags / "drive.mp4", progress=False)
