"""Camera images to a BEV result: decode, fit, run the network. Plain objects in and out, no ROS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.deploy.weights import WeightsInfo
from bridgeta_core.geometry import images
from bridgeta_core.geometry.coverage import measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.lens import Undistortion
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.images import EncodedImage, Picture, RawImage, decode_image, raw_to_rgb

_CLOSED = "no thread decodes the set: the pipeline is closed, or threads ran out"
_CACHED_VIEWS = 8  # sets of cameras, as many as the runtime caches lift plans for


class BevRuntime(Protocol):
    """What the pipeline needs of `bridgeta_core.deploy.runtime.Runtime`."""

    info: WeightsInfo
    grid: BevGrid

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        """Return how the images of each camera become network inputs."""
        ...

    def infer(self, images: NDArray[np.uint8], rig: Rig) -> NDArray[np.float32]:
        """Return class probabilities `[6, Y, X]` for network inputs `[N, h, w, 3]` RGB."""
        ...

    def warm_up(self, rig: Rig) -> None:
        """Do ahead what would make the first call of `infer` slow."""
        ...


@dataclass(frozen=True)
class _Lens:
    """How one camera's pictures become network inputs."""

    camera: Camera
    fit: ImageFit
    undistortion: Undistortion | None
    to_rgb: Callable[[RawImage], Picture]

    @property
    def resize(self) -> ImageFit:
        """How the image is resized before anything else."""
        return self.fit if self.undistortion is None else self.undistortion.resize

    @property
    def reduction(self) -> int:
        return images.choose_reduction(self.resize)

    def decode(self, image: EncodedImage | RawImage) -> Picture:
        """Decode to RGB `[H, W, 3]` in the camera's size or the decoder's reduction of it."""
        return decode_image(image, (self.camera.width, self.camera.height), self.reduction, self.to_rgb)

    def preprocess(self, picture: Picture) -> Picture:
        """Resize, undistort and cut a picture to the network input `[h, w, 3]`."""
        return images.apply_fit(picture, self.fit) if self.undistortion is None else self.undistortion.apply(picture)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One image as the network takes it: `[h, w, 3]`, or why it is of no use; with the seconds of both steps."""

    input: Picture | BridgeTAError
    decode: float
    preprocess: float


def _fit(lens: _Lens, item: EncodedImage | RawImage) -> Fitted:
    """Decode and preprocess one camera's image."""
    start = perf_counter()
    picture = _attempt(_Lens.decode, lens, item)
    middle = perf_counter()
    if not isinstance(picture, BridgeTAError):
        picture = _attempt(_Lens.preprocess, lens, picture)
    return Fitted(picture, middle - start, perf_counter() - middle)


def _attempt(step: Callable[[_Lens, Any], Picture], lens: _Lens, item: Any) -> Picture | BridgeTAError:
    """Apply a step to one camera's image; return its result, or an error that names the camera.

    The error is not raised: a traceback would hold this set's pictures until the garbage collector runs.
    """
    try:
        return step(lens, item)
    except BridgeTAError as error:
        what, fix = error.what, error.fix
    except Exception as error:
        # Broad, because bytes from outside meet code that is not ours: cv_bridge raises CvBridgeError, TypeError,
        # KeyError or ValueError, OpenCV and NumPy their own. No list is complete, and a bad message must cost its
        # camera only.
        what, fix = f"cannot be used ({type(error).__name__}: {error})", None
    kind = f" ({item.format})" if isinstance(item, EncodedImage) and item.format else ""
    return BridgeTAError(what + kind, where=f"camera {lens.camera.name}", fix=fix)


def _share_time(seconds: float, made: Iterable[Fitted]) -> dict[str, float]:
    """Divide the time for the images of a set, which pass both steps at the same time, into milliseconds by stage."""
    times = [(image.decode, image.preprocess) for image in made]
    decode, both = sum(first for first, _ in times), sum(map(sum, times))
    share = decode / both if both else 0.0
    return {"decode": 1e3 * seconds * share, "preprocess": 1e3 * seconds * (1 - share)}


class _View(NamedTuple):
    """Some cameras of a rig, and the cells `[Y, X]` that they look at."""

    rig: Rig
    seen: NDArray[np.bool_]


@dataclass(frozen=True)
class Prepared:
    """One set as the network takes it."""

    inputs: Picture  # [N, h, w, 3]
    stamp_ns: int  # of the newest image
    latencies: dict[str, float]  # milliseconds by stage, of what was not done ahead
    cameras: tuple[str, ...]  # the N cameras, in the order of the rig
    faults: dict[str, str] = field(default_factory=dict)  # why a camera's image could not be used


@dataclass(frozen=True)
class BevResult:
    """What the network says of one set."""

    probabilities: NDArray[np.float32]  # by class, [6, Y, X]
    seen: NDArray[np.bool_]  # cells [Y, X] that the cameras of this set look at
    stamp_ns: int  # of the newest image
    latencies: dict[str, float]  # milliseconds of the stages decode, preprocess and network
    cameras: tuple[str, ...] = ()  # the cameras used
    faults: dict[str, str] = field(default_factory=dict)  # why a camera's image could not be used
    thresholds: tuple[float, ...] | None = None  # of the classes, from which a picture shows them


class BevPipeline:
    """Turns the images of a fixed rig into results.

    `prepare` and `infer` may run in different threads, so that the next set is decoded while the network works on this
    one. A set needs images of `minimum` cameras (None: of all). The network then runs on the rig of these alone, as if
    the vehicle had no others. `to_rgb` decodes raw images to `[H, W, 3]` RGB. `coverage` says what each camera sees of
    the grid, and `seen` are the cells `[Y, X]` that the whole rig looks at. Raises BridgeTAError for a minimum that the
    rig cannot meet.
    """

    def __init__(
        self,
        runtime: BevRuntime,
        rig: Rig,
        workers: int | None = None,
        *,
        minimum: int | None = None,
        to_rgb: Callable[[RawImage], Picture] = raw_to_rgb,
    ) -> None:
        count = len(rig.cameras)
        if minimum is not None and not 1 <= minimum <= count:
            raise BridgeTAError(f"a set of {minimum} cameras at least is asked of a rig of {count}", exit_code=2)
        self.runtime, self.rig, self._minimum = runtime, rig, minimum
        fits = runtime.fits(rig)
        lift = runtime.info.model.lift
        self.coverage = measure_coverage(rig, fits, runtime.grid, lift.depth_min, lift.depth_max)
        self._lenses = {v.camera.name: _Lens(v.camera, v.fit, v.undistortion, to_rgb) for v in self.coverage}
        self._seen = {view.camera.name: view.seen for view in self.coverage}
        self._views: dict[tuple[str, ...], _View] = {}
        self.seen = self._view(rig.names).seen
        self._closed = False
        self._pool = ThreadPoolExecutor(min(count, workers or os.cpu_count() or 1), thread_name_prefix="decode")

    def fit(self, name: str, image: EncodedImage | RawImage) -> Fitted | None:
        """Decode and fit the image of one camera ahead of its set; return None for a camera that the rig lacks."""
        lens = self._lenses.get(name)
        return None if lens is None else _fit(lens, image)

    def prepare(self, pictures: Mapping[str, EncodedImage | RawImage | Fitted], stamp_ns: int) -> Prepared:
        """Decode and fit the images of one set by camera name; ignore names that the rig lacks.

        What `fit` has made of an image may stand in its place. Raises BridgeTAError once the pipeline is closed, and
        when fewer cameras than the minimum have a usable image. It names the cameras without an image, and those whose
        image is broken, of an unknown encoding or of another size than its calibration.
        """
        faults: dict[str, BridgeTAError] = {}
        known = {name: pictures[name] for name in self._lenses if name in pictures}
        self._require_enough(known, faults)
        start = perf_counter()
        made = self._fit_all({name: item for name, item in known.items() if not isinstance(item, Fitted)})
        usable = {}
        for name, item in known.items():
            result = item.input if isinstance(item, Fitted) else made[name].input
            if isinstance(result, BridgeTAError):
                faults[name] = result
            else:
                usable[name] = result
        self._require_enough(usable, faults)
        inputs = np.stack(list(usable.values()))
        latencies = _share_time(perf_counter() - start, made.values())
        reasons = {name: str(BridgeTAError(fault.what, fix=fault.fix)) for name, fault in faults.items()}
        return Prepared(inputs, stamp_ns, latencies, tuple(usable), reasons)

    def _fit_all(self, items: Mapping[str, EncodedImage | RawImage]) -> dict[str, Fitted]:
        """Decode and fit images at the same time; a single one in this thread, without waiting for another."""
        if self._closed:
            raise BridgeTAError(_CLOSED)
        lenses = [self._lenses[name] for name in items]
        if len(items) < 2:
            return {name: _fit(lens, item) for lens, (name, item) in zip(lenses, items.items(), strict=True)}
        try:
            return dict(zip(items, self._pool.map(_fit, lenses, items.values()), strict=True))
        except (CancelledError, RuntimeError) as error:
            # A closed pool takes no work and cancels what waits. It also raises if the system has no thread left.
            raise BridgeTAError(_CLOSED) from error

    def _require_enough(self, usable: Mapping[str, Any], faults: Mapping[str, BridgeTAError]) -> None:
        """Raise BridgeTAError that says what the set lacks if fewer cameras than the minimum are usable."""
        count, needed = len(self._lenses), self._minimum or len(self._lenses)
        if len(usable) >= needed:
            return
        missing = [name for name in self._lenses if name not in usable and name not in faults]
        lacks = [f"the set has no image of {', '.join(missing)}"] if missing else []
        if self._minimum is not None:
            reasons = "; ".join([*lacks, *map(str, faults.values())])
            raise BridgeTAError(f"{len(usable)} of {count} cameras are usable, {needed} are needed: {reasons}")
        if missing:
            raise BridgeTAError(lacks[0])
        first = next(iter(faults.values()))
        raise BridgeTAError(first.what, where=first.where, fix=first.fix)

    def infer(self, prepared: Prepared) -> BevResult:
        """Run the network on a prepared set."""
        start = perf_counter()
        view = self._view(prepared.cameras)
        probabilities = self.runtime.infer(prepared.inputs, view.rig)
        latencies = {**prepared.latencies, "network": 1e3 * (perf_counter() - start)}
        return BevResult(
            probabilities,
            view.seen,
            prepared.stamp_ns,
            latencies,
            prepared.cameras,
            dict(prepared.faults),
            self.runtime.info.thresholds,
        )

    def _view(self, names: tuple[str, ...]) -> _View:
        """Return the rig of some cameras and what they see; the last few are cached."""
        view = self._views.pop(names, None)
        if view is None:
            view = _View(self.rig.select(names), np.logical_or.reduce([self._seen[name] for name in names]))
        self._views[names] = view  # last, as the one used last
        if len(self._views) > _CACHED_VIEWS:
            del self._views[next(iter(self._views))]
        return view

    def run(self, pictures: Mapping[str, EncodedImage | RawImage | Fitted], stamp_ns: int) -> BevResult:
        """Prepare a set and run the network on it."""
        return self.infer(self.prepare(pictures, stamp_ns))

    def close(self) -> None:
        """Stop the threads and drop what has not begun."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> BevPipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
