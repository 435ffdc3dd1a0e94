"""Import a checkpoint of BEVFusion as one of our networks."""

from __future__ import annotations

from pathlib import Path

from bridgeta_core.bevfusion.camera import import_student
from bridgeta_core.bevfusion.checkpoint import Checkpoint, read_checkpoint
from bridgeta_core.bevfusion.swin import import_backbone
from bridgeta_core.bevfusion.teacher import import_teacher
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import check_output

ROLES = ("student", "teacher", "backbone")

_NETWORKS = {"camera": "camera-only network", "lidar": "LiDAR-only network", "fusion": "fusion network"}
_IMPORTS = {
    ("student", "camera"): import_student,
    ("backbone", "swin"): import_backbone,
    ("teacher", "lidar"): import_teacher,
    ("teacher", "fusion"): import_teacher,
}


def import_checkpoint(path: Path, out: Path, role: str, overwrite: bool = False) -> str:
    """Write the network of a checkpoint to `out` for one of the `ROLES`, and return what it is.

    A backbone becomes a folder, the others a weights file. Raises BridgeTAError as `read_checkpoint` and `take` do, for
    an unknown role, for a network that has another one, and when `out` exists and `overwrite` is off.
    """
    if role not in ROLES:
        raise BridgeTAError(f"--as {role} is not one of {', '.join(ROLES)}", exit_code=2)
    check_output(out, folder=role == "backbone", inputs=[path])
    if out.exists() and not overwrite:
        raise BridgeTAError("already exists", where=out, fix="Name another output, or replace it with --overwrite")
    checkpoint = read_checkpoint(path)
    network = checkpoint.network
    action = _IMPORTS.get((role, network))
    if action is None:
        raise _explain(checkpoint, network, role)
    action(checkpoint, out)
    return _NETWORKS.get(network, "Swin backbone")


def _explain(checkpoint: Checkpoint, network: str, role: str) -> BridgeTAError:
    others = [wanted for wanted, kind in _IMPORTS if kind == network]
    fix = f"Import it --as {' or '.join(others)}" if others else "Name the camera-only checkpoint"
    what = f"is {'a Swin backbone' if network == 'swin' else f'the {_NETWORKS[network]}'}, which cannot be a {role}"
    return BridgeTAError(what, where=checkpoint.path, fix=fix, exit_code=2)
