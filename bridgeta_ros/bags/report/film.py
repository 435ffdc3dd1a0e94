"""A film of a replay: cameras, prediction, ground truth and what is wrong, set by set."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from bridgeta_core.geometry.images import Image, decode
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view.sample import Scenery, draw_sample
from bridgeta_ros.bags.io import progress_bar
from bridgeta_ros.bags.report.moments import Moment, ShownReplay

_SLOWEST, _FASTEST = 1.0, 30.0  # pictures per second
_CODEC = "vp09"  # VP9, which browsers play and OpenCV's wheels can write; they have no H.264


def write_film(replay: ShownReplay, out: Path, *, progress: bool = True) -> None:
    """Write a film of a replay to the new file `out`, as MP4, with a picture per moment.

    Raises BridgeTAError when OpenCV cannot write it, or not as a whole.
    """
    height, width = (side // 2 * 2 for side in _draw(replay, replay.moments[0]).shape[:2])  # the codec wants even sides
    with TemporaryDirectory(prefix="bridgeta_") as folder, progress_bar(progress) as bar:
        film = Path(folder) / "film.mp4"  # by whose name OpenCV knows the format
        _require_room(film)
        writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*_CODEC), _choose_rate(replay), (width, height))
        if not writer.isOpened():
            raise BridgeTAError("this OpenCV cannot write VP9", fix="Install opencv-python-headless from PyPI")
        for moment in bar.track(replay.moments, description="film"):
            writer.write(np.ascontiguousarray(_draw(replay, moment)[:height, :width, ::-1]))
        writer.release()
        # OpenCV says nothing when a disk is full.
        if cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FRAME_COUNT) != len(replay.moments):
            raise BridgeTAError("a film could not be written as a whole", where=folder, fix="Make room on that disk")
        out.write_bytes(film.read_bytes())


def _require_room(film: Path) -> None:
    """Raise BridgeTAError where not even a little can be written, which OpenCV would not tell from a lack of VP9."""
    try:
        film.write_bytes(bytes(2**16))
    except OSError as error:
        what = f"a film cannot be written here ({error.strerror})"
        raise BridgeTAError(what, where=film.parent, fix="Name a folder with room: TMPDIR=FOLDER") from error


def _choose_rate(replay: ShownReplay) -> float:
    """Choose pictures per second so that the film runs in real time, if that is neither too slow nor too fast."""
    stamps = [moment.stamp_ns for moment in replay.moments]
    gaps = np.diff(stamps) / 1e9
    return float(np.clip(1 / np.median(gaps), _SLOWEST, _FASTEST)) if len(gaps) else _SLOWEST


def _draw(replay: ShownReplay, moment: Moment) -> Image:
    truth = None if moment.truth is None else replay.truths[moment.truth]
    scenery = Scenery(
        rig=replay.rig,
        images=[decode(image) for image in moment.images],
        grid=replay.grid,
        truth=None if truth is None else truth > 0,
        prediction=np.maximum(moment.values, 0) / np.float32(100),
        known=[True] * len(moment.values) if truth is None else (truth >= 0).any(axis=(1, 2)).tolist(),
        thresholds=replay.thresholds,
        seen=(moment.values >= 0).any(axis=0),
    )
    seconds = (moment.stamp_ns - replay.summary.stamps[0]) / 1e9
    age = f"ground truth of {moment.age:.2f} s before" if moment.truth is not None and not moment.is_scored else ""
    return draw_sample(scenery, f"{Path(replay.summary.source).name}, {seconds:.2f} s\n{age}")
