"""Camera images to a BEV result: decode, fit, run the network. Plain objects in and out, no ROS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image import ImageError, image_to_cvimage
from rosbags.image.image import to_cvtype

from bridgeta_core import images
from bridgeta_core.errors import BridgeTAError
from bridgeta_core.geometry import ImageFit
from bridgeta_core.grid import BevGrid
from bridgeta_core.rig import Camera, Rig
from bridgeta_core.weights import WeightsInfo
from bridgeta_ros.visibility import seen_cells

Picture = NDArray[np.uint8]
Buffer = Any  # anything with the buffer protocol: bytes, array.array, ndarray


class BevRuntime(Protocol):
    """What the pipeline needs of `bridgeta_core.runtime.Runtime`."""

    info: WeightsInfo
    grid: BevGrid

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        """How the images of each camera become network inputs."""
        ...

    def infer(self, images: NDArray[np.uint8], rig: Rig) -> NDArray[np.float32]:
        """Class probabilities `[6, Y, X]` of network inputs `[N, h, w, 3]` RGB."""
        ...

    def warm_up(self, rig: Rig) -> None:
        """Do what the first call of `infer` would take long for."""
        ...


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG or PNG, and what the message calls its format."""

    data: Buffer
    format: str = ""


@dataclass(frozen=True)
class RawImage:
    """Pixels as sensor_msgs/Image has them: `height` rows of `step` bytes."""

    height: int
    width: int
    encoding: str
    step: int
    data: Buffer
    is_bigendian: bool = False


def image_from_message(message: Any) -> EncodedImage | RawImage:
    """The image of a sensor_msgs CompressedImage or Image, of any library; its data is not copied."""
    if hasattr(message, "format"):
        return EncodedImage(message.data, message.format)
    return RawImage(
        int(message.height),
        int(message.width),
        message.encoding,
        int(message.step),
        message.data,
        bool(message.is_bigendian),
    )


def raw_to_rgb(image: RawImage) -> Picture:
    """Pixels `[H, W, 3]` RGB of a raw image; the padding at the end of its rows is dropped.

    Raises BridgeTAError for an encoding without colours or greys, and for data that are too short.
    """
    data = np.frombuffer(image.data, dtype=np.uint8)
    # The colours of these stand in half as many rows again, below the greys.
    height = image.height * 3 // 2 if image.encoding in ("nv12", "nv21") else image.height
    try:
        _, _, kind, channels = to_cvtype(image.encoding)
        row = image.width * channels * np.dtype(kind).itemsize
        if row < 1 or image.height < 1 or image.step < row or data.size < height * image.step:
            raise BridgeTAError(
                f"raw image of {data.size} bytes cannot hold {image.width}x{image.height} pixels of "
                f"{image.encoding} in rows of {image.step} bytes"
            )
        rows = data[: height * image.step].reshape(height, image.step)[:, :row]
        # The library takes rows to be packed, and bytes to have an order.
        swapped = image.is_bigendian and np.dtype(kind).itemsize > 1
        packed = replace(image, height=height, step=row, data=np.ascontiguousarray(rows), is_bigendian=swapped)
        picture = image_to_cvimage(cast(Any, packed), "rgb8")
    except (ImageError, cv2.error) as error:
        raise BridgeTAError(
            f"image encoding {image.encoding!r} cannot be turned to colours",
            fix="Publish rgb8, bgr8, mono8, a Bayer pattern, YUV 4:2:2 or NV12, or JPEG",
        ) from error
    return np.ascontiguousarray(picture, dtype=np.uint8)


@dataclass(frozen=True)
class _Lens:
    """How one camera's pictures become network inputs; the maps are made once."""

    camera: Camera
    fit: ImageFit

    @cached_property
    def maps(self) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
        """Where in the resized image each pixel of the network input is looked up, lens distortion included."""
        resized = replace(self.fit, offset=(0, 0), size=self.fit.resized).matrix @ self.camera.intrinsics
        wanted = self.fit.matrix @ self.camera.intrinsics
        d = np.array(self.camera.distortion)
        return cv2.initUndistortRectifyMap(resized, d, None, wanted, self.fit.size, cv2.CV_16SC2)

    @property
    def reduction(self) -> int:
        return images.reduction_for(self.fit)

    def decode(self, image: EncodedImage | RawImage) -> Picture:
        """RGB `[H, W, 3]` in the camera's size or the decoder's reduction of it."""
        reduction = self.reduction if isinstance(image, EncodedImage) else 1
        picture = images.decode(image.data, reduction) if isinstance(image, EncodedImage) else raw_to_rgb(image)
        height, width = picture.shape[:2]
        # Decoders round the reduced size up (JPEG) or down (PNG).
        if any(
            got not in (full // reduction, -(-full // reduction))
            for got, full in ((width, self.fit.source[0]), (height, self.fit.source[1]))
        ):
            raise BridgeTAError(
                f"the image has {'about ' if reduction > 1 else ''}{width * reduction}x{height * reduction} pixels, "
                f"its calibration is for {self.fit.source[0]}x{self.fit.source[1]}",
                fix="Use the CameraInfo of this image size",
            )
        return picture

    def preprocess(self, picture: Picture) -> Picture:
        """Resize, undistort and cut a picture to the network input `[h, w, 3]`."""
        if not any(self.camera.distortion):
            return images.apply_fit(picture, self.fit)
        if picture.shape[1::-1] != self.fit.resized:
            picture = cv2.resize(picture, self.fit.resized, interpolation=cv2.INTER_AREA)
        return cv2.remap(picture, *self.maps, cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Prepared:
    """Network inputs `[N, h, w, 3]` of one set, its stamp, and the milliseconds each stage took."""

    inputs: Picture
    stamp_ns: int
    latencies: dict[str, float]


@dataclass(frozen=True)
class BevResult:
    """Class probabilities `[6, Y, X]`, the cells `[Y, X]` that the cameras look at, the stamp of the newest image
    in nanoseconds, and the milliseconds of the stages `decode`, `preprocess` and `network`.
    """

    probabilities: NDArray[np.float32]
    seen: NDArray[np.bool_]
    stamp_ns: int
    latencies: dict[str, float]


class BevPipeline:
    """The way from images to a result, for a fixed rig. `prepare` and `infer` may run in different threads, so that
    the next set is decoded while the network works on this one.
    """

    def __init__(self, runtime: BevRuntime, rig: Rig, workers: int | None = None) -> None:
        self.runtime, self.rig = runtime, rig
        self._lenses = [_Lens(camera, fit) for camera, fit in zip(rig.cameras, runtime.fits(rig), strict=True)]
        lift = runtime.info.model.lift
        fits = [lens.fit for lens in self._lenses]
        self.seen = seen_cells(rig, fits, runtime.grid, lift.depth_min, lift.depth_max)
        count = min(len(rig.cameras), workers or os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decode")

    def prepare(self, pictures: Mapping[str, EncodedImage | RawImage], stamp_ns: int) -> Prepared:
        """Decode and fit the images of one set, by camera name.

        Raises BridgeTAError, naming the camera, for an image that is broken, of an unknown encoding or of another
        size than its calibration.
        """
        missing = [name for name in self.rig.names if name not in pictures]
        if missing:
            raise BridgeTAError(f"the set has no image of {', '.join(missing)}")
        start = perf_counter()
        decoded = list(self._pool.map(self._decode, self._lenses, [pictures[name] for name in self.rig.names]))
        middle = perf_counter()
        inputs = np.stack(list(self._pool.map(_Lens.preprocess, self._lenses, decoded)))
        end = perf_counter()
        return Prepared(inputs, stamp_ns, {"decode": 1e3 * (middle - start), "preprocess": 1e3 * (end - middle)})

    @staticmethod
    def _decode(lens: _Lens, image: EncodedImage | RawImage) -> Picture:
        try:
            return lens.decode(image)
        except BridgeTAError as error:
            kind = f" ({image.format})" if isinstance(image, EncodedImage) and image.format else ""
            raise BridgeTAError(error.what + kind, where=f"camera {lens.camera.name}", fix=error.fix) from error

    def infer(self, prepared: Prepared) -> BevResult:
        """Run the network on a prepared set."""
        start = perf_counter()
        probabilities = self.runtime.infer(prepared.inputs, self.rig)
        latencies = {**prepared.latencies, "network": 1e3 * (perf_counter() - start)}
        return BevResult(probabilities, self.seen, prepared.stamp_ns, latencies)

    def run(self, pictures: Mapping[str, EncodedImage | RawImage], stamp_ns: int) -> BevResult:
        """`prepare` and `infer` in one."""
        return self.infer(self.prepare(pictures, stamp_ns))

    def close(self) -> None:
        """Stop the threads; what has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> BevPipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
