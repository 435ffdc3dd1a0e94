"""The cameras of a vehicle: names, image sizes, intrinsics and mounting poses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bridgeta_core.geometry.transforms import Matrix, quaternion, rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import replace_when_done


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: image size and 3x3 intrinsics in pixels, 4x4 ego_T_cam (optical frame), and distortion.

    Distortion is plumb_bob's coefficients (k1, k2, p1, p2, k3, ...), empty when the images are rectified.
    """

    name: str
    width: int
    height: int
    intrinsics: Matrix
    ego_T_cam: Matrix
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        k, pose = np.asarray(self.intrinsics, dtype=np.float64), np.asarray(self.ego_T_cam, dtype=np.float64)
        object.__setattr__(self, "intrinsics", k)
        object.__setattr__(self, "ego_T_cam", pose)
        problem = None
        if self.width < 1 or self.height < 1:
            problem = f"image size {self.width}x{self.height} is empty"
        elif k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
            problem = f"intrinsics {k.tolist()} need 3x3 finite numbers with positive focal lengths"
        elif pose.shape != (4, 4) or not np.isfinite(pose).all():
            problem = "ego_T_cam needs 4x4 finite numbers"
        elif not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-4):
            problem = "the rotation of ego_T_cam is not orthonormal"
        if problem:
            raise BridgeTAError(problem, where=f"camera {self.name}", fix="Correct its calibration")


@dataclass(frozen=True, eq=False)
class Rig:
    """An ordered set of cameras; the order is that of the network's camera axis."""

    cameras: tuple[Camera, ...]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(camera.name for camera in self.cameras)
        if not names or len(set(names)) != len(names):
            raise BridgeTAError(f"a rig needs one or more cameras with different names, not {list(names)}")
        object.__setattr__(self, "names", names)

    def key(self) -> tuple[Any, ...]:
        """Return a hashable value that is equal for two rigs exactly when their calibrations are."""
        return tuple(
            (c.name, c.width, c.height, c.intrinsics.tobytes(), c.ego_T_cam.tobytes(), c.distortion)
            for c in self.cameras
        )

    def select(self, names: tuple[str, ...]) -> Rig:
        """Return the rig of some cameras, in this order. Raises BridgeTAError for an unknown name."""
        by_name = {camera.name: camera for camera in self.cameras}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise BridgeTAError(f"no calibration for {', '.join(missing)}; the rig has {', '.join(self.names)}")
        return Rig(tuple(by_name[name] for name in names))

    def save(self, path: Path) -> None:
        """Write the rig as YAML: translations in metres, (w, x, y, z) quaternions, pixels."""
        cameras = {
            c.name: {
                "width": c.width,
                "height": c.height,
                "intrinsics": [[float(v) for v in row] for row in c.intrinsics],
                "translation": [float(v) for v in c.ego_T_cam[:3, 3]],
                "rotation": [float(v) for v in quaternion(c.ego_T_cam)],
                "distortion": [float(v) for v in c.distortion],
            }
            for c in self.cameras
        }
        with replace_when_done(path) as temporary:
            temporary.write_text(yaml.safe_dump({"cameras": cameras}, sort_keys=False, default_flow_style=None))

    @classmethod
    def load(cls, path: Path) -> Rig:
        """Read a rig that `save` wrote. Raises BridgeTAError that names the file, the camera and the key at fault."""
        fix = "See docs/rig.md for the format"
        try:
            content = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            raise BridgeTAError(f"cannot be read ({error.strerror})", where=path) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BridgeTAError(f"is not YAML ({error})", where=path, fix=fix) from error
        if not isinstance(content, dict) or not isinstance(content.get("cameras"), dict):
            raise BridgeTAError("has no mapping 'cameras'", where=path, fix=fix)
        if not content["cameras"]:
            raise BridgeTAError("lists no camera", where=path, fix=fix)
        cameras = []
        for name, entry in content["cameras"].items():
            try:
                cameras.append(
                    Camera(
                        name=str(name),
                        width=int(entry["width"]),
                        height=int(entry["height"]),
                        intrinsics=np.array(entry["intrinsics"], dtype=np.float64),
                        ego_T_cam=rigid(entry["translation"], entry["rotation"]),
                        distortion=tuple(float(v) for v in entry.get("distortion", ())),
                    )
                )
            except KeyError as error:
                raise BridgeTAError(f"camera {name} has no {error}", where=path, fix=fix) from error
            except (TypeError, ValueError, BridgeTAError) as error:
                raise BridgeTAError(f"camera {name}: {error}", where=path, fix=fix) from error
        return cls(tuple(cameras))
