"""The methods of distillation by the names that `distill.method` gives them."""

from __future__ import annotations

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Distiller
from bridgeta_core.distill.methods.bevfeature import BevFeature
from bridgeta_core.distill.methods.bridgeta import BridgeTA
from bridgeta_core.distill.methods.channelwise import ChannelWise
from bridgeta_core.distill.methods.direct import Direct
from bridgeta_core.distill.methods.fitnet import FitNet
from bridgeta_core.distill.methods.logits import Logits
from bridgeta_core.distill.related.apt import Apt
from bridgeta_core.distill.related.dfa import Dfa
from bridgeta_core.distill.related.elite import Elite
from bridgeta_core.distill.related.gpd import Gpd
from bridgeta_core.distill.related.kd360 import Kd360
from bridgeta_core.distill.related.mapdistill import MapDistill
from bridgeta_core.distill.related.mapkd import MapKd
from bridgeta_core.distill.related.ofa_kd import OfaKd
from bridgeta_core.distill.related.rdd import Rdd
from bridgeta_core.distill.related.sskd import Sskd
from bridgeta_core.distill.related.tscm import Tscm
from bridgeta_core.distill.related.wcord import Wcord
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError

METHODS: dict[str, type[Distiller]] = {
    "bridgeta": BridgeTA,
    "direct": Direct,
    "logits": Logits,
    "fitnet": FitNet,
    "channelwise": ChannelWise,
    "bevfeature": BevFeature,
    "ofa_kd": OfaKd,
    "dfa": Dfa,
    "gpd": Gpd,
    "rdd": Rdd,
    "kd360": Kd360,
    "sskd": Sskd,
    "wcord": Wcord,
    "tscm": Tscm,
    "elite": Elite,
    "mapdistill": MapDistill,
    "apt": Apt,
    "mapkd": MapKd,
}


def build_distiller(config: DistillConfig, student: Student, teacher: Teacher) -> Distiller:
    """Build the distiller that the settings name. Raises BridgeTAError (exit code 2) that lists the methods."""
    if config.method not in METHODS:
        raise BridgeTAError(f"distill.method = {config.method!r} is not one of {', '.join(METHODS)}", exit_code=2)
    return METHODS[config.method](config, student, teacher)
