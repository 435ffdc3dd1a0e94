"""BridgeTA: camera-only BEV map segmentation, distilled from a LiDAR-camera teacher.

from bridgeta_core import Rig, Runtime

runtime = Runtime("tiny")
probabilities = runtime(images, Rig.load("rig.yaml"))
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # checkers take it for typing's, which is slower to import than all of this file
if TYPE_CHECKING:
    from typing import Any

    from bridgeta_core.deploy.runtime import Runtime as Runtime
    from bridgeta_core.geometry.rig import Rig as Rig
    from bridgeta_core.utils.errors import BridgeTAError as BridgeTAError

__all__ = ["BridgeTAError", "Rig", "Runtime"]

# Waiting OpenMP threads spin by default and take the cores from whoever they wait for. Beside the decoding threads or
# another busy process a pass of the `tiny` network took 1,600 ms on two cores; it takes 100 ms when they sleep. OpenMP
# reads this when torch is loaded, so it stands here, before any of our modules can load it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# OpenBLAS's threads spin too, after every product that numpy shares out, however small; ours are 4x4 matrices and lists
# of points. Rendering a keyframe on one core kept another half busy for nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_MODULES = {
    "BridgeTAError": "bridgeta_core.utils.errors",
    "Rig": "bridgeta_core.geometry.rig",
    "Runtime": "bridgeta_core.deploy.runtime",
}


def __getattr__(name: str) -> Any:
    """Import the face of the package on first use: `import bridgeta_core` loads neither torch nor numpy."""
    import importlib
    import importlib.metadata

    if name == "__version__":
        try:
            return importlib.metadata.version("bridgeta_ros")
        except importlib.metadata.PackageNotFoundError:
            return "unknown"  # run from a source tree that is not installed
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
