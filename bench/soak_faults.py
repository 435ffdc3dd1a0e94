"""What goes wrong in the soak test: a random schedule of faults of the vehicle, the graph, and whoever runs the node.

Each kind of fault is a generator: it does something, yields how long that shall last, in seconds, and may go on; when
it ends, everything is as it was.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rosidl_runtime_py.utilities import get_message
from soak_vehicle import LATCHED, Hostile, Vehicle
from std_srvs.srv import Trigger

from bridgeta_core.deploy.weights import find_weights
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_ros.pipeline import messages

Fault = Iterator[float]
SECOND = 1_000_000_000
NODE = "/bev_node"
BAG_START = 1_533_000_000 * SECOND  # ns; simulated time begins about there
# Parameters as somebody may set them at any time, and the value that they have otherwise.
VALID = {
    "threshold": (0.1, 0.9, 0.5),
    "max_rate": (1.0, 50.0, 0.0),
    "lazy": (False, True),
    "calibration_tolerance": (0.0, 10.0, 0.5),
    "diagnostics.expected_rate": (0.0, 30.0, 1.0),
    "diagnostics.late_after": (0.05, 30.0, 0.5),
}
INVALID = {
    "threshold": (1.5, float("nan"), "high", -1),
    "max_rate": (-1.0, float("inf"), True),
    "diagnostics.period": (0.5,),  # of the start
    "depth": (99, 0),  # of an unconfigured node
    "cameras": (["a", "a"],),
    "precision": ("float8",),
    "reliability": ("now and then",),
    "weights": (3,),
    "no_such_parameter": (1,),
}
OF_THE_VEHICLE = (
    "late",
    "dead",
    "hostile",
    "silence",
    "loop",
    "jump",
    "recalibrate",
    "crowd",
    "restart",
    "leave",
    "guests",
)
OF_THE_NODE = ("parameters", "reload", "calibrate", "pause", "reconfigure", "forbidden", "simulate")


@dataclass
class Faults:
    """The faults, and what came of them. `call` asks a service of the node and returns its answer, or None."""

    vehicle: Vehicle
    call: Callable[[type, str, Any], Any]
    folder: Path  # for weights files
    seed: int
    subscribe: Callable[[bool], None]  # whether the user subscribes to the outputs
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # answers other than they should be

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._rig = self.vehicle.rig
        whole = find_weights("tiny").read_bytes()
        self._weights = [self.folder / name for name in ("copy.safetensors", "cut.safetensors", "none.safetensors")]
        self._weights[0].write_bytes(whole)
        self._weights[1].write_bytes(whole[: len(whole) // 2])

    def choose(self) -> dict[str, Fault]:
        """Choose up to three faults that happen together: at most one of the node, the others of the vehicle."""
        rng = self._rng
        chosen = rng.sample(OF_THE_VEHICLE, rng.choice([0, 1, 1, 2]))
        if not chosen or rng.random() < 0.6:
            chosen.append(rng.choice(OF_THE_NODE))
        self.done.update(chosen)
        return {name: getattr(self, name)() for name in chosen}

    def _hold(self, most: float = 8.0) -> float:
        return self._rng.uniform(0.5, most)

    def _cameras(self, most: int = 4) -> list[int]:
        return self._rng.sample(range(len(self._rig.cameras)), self._rng.randint(1, most))

    # Of the vehicle

    def late(self) -> Fault:
        """Let some cameras come late."""
        self.vehicle.delays = {i: self._rng.uniform(0.02, 1.0) for i in self._cameras()}
        yield self._hold()
        self.vehicle.delays = {}

    def dead(self) -> Fault:
        """Let some cameras send nothing."""
        self.vehicle.dead = frozenset(self._cameras())
        yield self._hold()
        self.vehicle.dead = frozenset()

    def hostile(self) -> Fault:
        """Let some cameras send nonsense."""
        self.vehicle.hostile = {i: Hostile(self._rng.randrange(2**32)) for i in self._cameras(3)}
        yield self._hold(15.0)
        self.vehicle.hostile = {}

    def silence(self) -> Fault:
        """Let nothing come from any camera."""
        self.vehicle.silent = True
        yield self._hold()
        self.vehicle.silent = False

    def loop(self) -> Fault:
        """Let a bag of 20 s start over some times."""
        for _ in range(self._rng.randint(1, 4)):
            self.vehicle.offset_ns -= 20 * SECOND
            yield self._hold(4.0)
        self.vehicle.offset_ns = 0
        yield 1.0

    def jump(self) -> Fault:
        """Let the clock of the stamps jump, forward or back, and set it right."""
        for _ in range(self._rng.randint(1, 3)):
            seconds = self._rng.choice([-1e9, -3600, -30, -2, -0.5, 0.5, 2, 30, 3600, 1e8])
            self.vehicle.offset_ns = round(seconds * SECOND)
            yield self._hold(5.0)
        self.vehicle.offset_ns = 0
        yield 1.0

    def recalibrate(self) -> Fault:
        """Move the cameras, once or again and again, and put them back."""
        for _ in range(self._rng.choice([1, 2, 8])):
            rig = Rig(tuple(self._move(camera) for camera in self._rig.cameras))
            self.vehicle.do(lambda rig=rig: self.vehicle.calibrate(rig))
            yield self._rng.uniform(0.3, 2.0)
        self.vehicle.do(lambda: self.vehicle.calibrate(self._rig))
        yield 2.5  # what does not rest is used once in two seconds

    def _move(self, camera: Camera) -> Camera:
        rng = self._rng
        step = rigid([rng.gauss(0, 0.05) for _ in range(3)], (1, rng.gauss(0, 0.01), rng.gauss(0, 0.01), 0))
        intrinsics = camera.intrinsics.copy()
        intrinsics[:2, 2] += rng.uniform(-20, 20)
        return replace(camera, intrinsics=intrinsics, ego_T_cam=step @ camera.ego_T_cam)

    def crowd(self) -> Fault:
        """Fill TF with frames that nobody has heard of."""
        for _ in range(self._rng.randint(1, 10)):
            prefix = f"frame_{self._rng.randrange(2**32)}"
            self.vehicle.do(lambda prefix=prefix: self.vehicle.name_frames(prefix, 300))
            yield 0.5

    def restart(self) -> Fault:
        """Let drivers of cameras leave the graph and come again."""
        for i in self._cameras():
            self.vehicle.do(lambda i=i: self.vehicle.restart_camera(i))
            yield self._hold(2.0)

    def leave(self) -> Fault:
        """Let the only subscriber leave and come again."""
        for _ in range(self._rng.randint(1, 3)):
            self.subscribe(False)
            yield self._hold(4.0)
            self.subscribe(True)
            yield self._hold(2.0)

    def guests(self) -> Fault:
        """Let others join the graph, subscribe to everything, and leave."""
        for _ in range(self._rng.randint(1, 3)):
            context = rclpy.Context()
            rclpy.init(context=context)
            node = rclpy.create_node(f"guest_{self._rng.randrange(2**32)}", context=context)
            for topic, kind in messages.list_output_topics().items():
                node.create_subscription(get_message(kind), topic, lambda _: None, LATCHED, raw=True)
            yield self._hold(4.0)
            node.destroy_node()
            rclpy.try_shutdown(context=context)

    # Of whoever runs the node

    def parameters(self) -> Fault:
        """Set parameters, rightly and wrongly."""
        for _ in range(self._rng.randint(3, 12)):
            values, expected = self._rng.choice([(VALID, True), (INVALID, False)])
            name = self._rng.choice(list(values))
            self._set(expected, **{name: self._rng.choice(values[name])})
            yield self._rng.uniform(0.05, 1.0)
        self._set(True, **{name: values[-1] for name, values in VALID.items()})

    def reload(self) -> Fault:
        """Load weights again: the same, a copy, a damaged file, none."""
        copied, cut, absent = map(str, self._weights)
        for _ in range(self._rng.randint(1, 4)):
            weights = self._rng.choice(["tiny", copied, copied, cut, absent])
            self._set(True, weights=weights)
            self._trigger("reload", weights in ("tiny", copied))
            yield self._hold(3.0)
        self._set(True, weights="tiny")
        self._trigger("reload", True)

    def calibrate(self) -> Fault:
        """Have the calibration read again."""
        self._trigger("calibrate", True)
        yield self._hold(3.0)

    def pause(self) -> Fault:
        """Deactivate and activate the node."""
        for _ in range(self._rng.randint(1, 3)):
            self._change("deactivate", True)
            yield self._hold(3.0)
            self._change("activate", True)
            yield self._hold(3.0)

    def reconfigure(self) -> Fault:
        """Clean up and configure the node with other parameters, also with some that fail."""
        rng = self._rng
        self._change("deactivate", True)
        self._change("cleanup", True)
        yield self._hold(2.0)
        if rng.random() < 0.3:
            self._set(True, weights=str(self._weights[1]))
            self._change("configure", False)
            self._set(True, weights="tiny")
        options = {"depth": rng.randint(1, 20), "slop": rng.uniform(0.05, 0.08), "patience": rng.uniform(0.06, 0.5)}
        self._set(True, **options, **{"local_map.enabled": rng.random() < 0.5})
        self._change("configure", True)
        self._change("activate", True)
        yield self._hold(3.0)

    def forbidden(self) -> Fault:
        """Ask for transitions that an active node does not have."""
        for name in self._rng.sample(["configure", "activate", "cleanup"], 2):
            self._change(name, False)
            yield self._hold(1.0)

    def simulate(self) -> Fault:
        """Let a player send /clock, whose time jumps and stands still, and the node follow it."""
        vehicle, rng = self.vehicle, self._rng
        vehicle.offset_ns += BAG_START - vehicle.now_ns()
        vehicle.simulated = True
        self._set(True, use_sim_time=True)
        yield self._hold(5.0)
        for _ in range(rng.randint(1, 3)):
            vehicle.offset_ns += round(rng.choice([-600, -20, -1.5, 1.5, 20, 600]) * SECOND)
            yield self._hold(4.0)
            vehicle.frozen = rng.random() < 0.3
            yield self._hold(4.0)
            vehicle.frozen = False
        self._set(True, use_sim_time=False)
        vehicle.simulated, vehicle.offset_ns = False, 0
        yield 1.0

    # Services

    def _check(self, what: str, got: bool | None, expected: bool, reason: str = "") -> None:
        self.done[f"service: {what.split()[0]} {'taken' if got else 'refused'}"] += 1
        if got is not expected:
            self.wrong.append(f"{what}: {'no answer' if got is None else f'success is {got}'} {reason}".strip())

    def _set(self, expected: bool, **values: Any) -> None:
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self.call(SetParameters, f"{NODE}/set_parameters", SetParameters.Request(parameters=parameters))
        results = [] if answer is None else answer.results
        got = all(result.successful for result in results) if results else None
        self._check(f"set {values}", got, expected, "; ".join(result.reason for result in results))

    def _trigger(self, name: str, expected: bool) -> None:
        answer = self.call(Trigger, f"{NODE}/{name}", Trigger.Request())
        self._check(name, answer and answer.success, expected, answer.message if answer else "")

    def _change(self, transition: str, expected: bool) -> None:
        request = ChangeState.Request()
        request.transition.label = transition
        answer = self.call(ChangeState, f"{NODE}/change_state", request)
        self._check(transition, answer and answer.success, expected)
