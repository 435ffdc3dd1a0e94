"""The live node: camera topics in, BEV grids out, under a lifecycle."""

from __future__ import annotations

import gc
import traceback
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from bridgeta_core.deploy.fallback import FallbackRuntime
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import return_memory
from bridgeta_ros.node.calibration import LiveCalibration
from bridgeta_ros.node.declared import DeclaredParameters
from bridgeta_ros.node.graph.factory import RosFactory
from bridgeta_ros.node.health import Health
from bridgeta_ros.node.inputs import CameraInputs, make_raw_decoder
from bridgeta_ros.node.outputs import Outputs
from bridgeta_ros.node.parameters import NodeParameters
from bridgeta_ros.node.worker import Frame, Worker
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.clock import DriveClock
from bridgeta_ros.pipeline.images import raw_to_rgb
from bridgeta_ros.pipeline.status import (
    ERROR,
    OK,
    WARN,
    Changes,
    Status,
    describe_calibration,
    describe_network,
    excuse_start,
)
from bridgeta_ros.pipeline.sync import ImageSet

NODE_NAME = "bev_node"


def format_traceback(error: BaseException) -> str:
    """Return the traceback as the interpreter would print it."""
    return "".join(traceback.format_exception(error))


class BevNode(LifecycleNode):
    """The lifecycle node.

    A configured node has the network and its publishers, an active one also its subscriptions and the worker. A
    transition that fails leaves the node as it was, with the reason in the log.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, **options)
        self._parameters_in_use = DeclaredParameters(self, is_configured=lambda: self._runtime is not None)
        self._runtime: FallbackRuntime | None = None
        self._names: tuple[str, ...] = ()
        self._outputs: Outputs | None = None
        self._calibration: LiveCalibration | None = None
        self._health: Health | None = None
        self._worker: Worker | None = None
        self._inputs: CameraInputs | None = None
        self._changes, self._make = Changes(), RosFactory()
        self._reported = self._remarked = ""
        self._failure: str | None = None  # why the last transition failed
        self._clock_of_drive = DriveClock(
            lambda: self.get_clock().now().nanoseconds, lambda: bool(self.get_clock().ros_time_is_active)
        )
        self.create_service(Trigger, "~/reload", self._reload)
        self.create_service(Trigger, "~/calibrate", self._calibrate)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # By the steady clock: simulated time may stand still, which diagnostics have to report.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(self.settings.diagnostics.period, self._tick, clock=steady)

    @property
    def settings(self) -> NodeParameters:
        """The parameters as they are now."""
        return self._parameters_in_use.values

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and create the publishers."""
        self._failure = None
        try:
            self._runtime = self._load_network()
            self._names = self.settings.choose_cameras(self._runtime.info.cameras)
            self._calibration = self._new_calibration()
            self._outputs = Outputs(self, self._runtime.grid, lambda: self.settings)
            if self._calibration.rig is not None:
                self._runtime.warm_up(self._calibration.rig)
        except Exception as error:  # rclpy would drop it silently
            self._release()
            return self._fail("configure", error)
        self.get_logger().info(
            f"configured: {self.settings.weights} on {self._runtime.device} by {self._runtime.backend} "
            f"({self._runtime.reason}), cameras {', '.join(self._names)}"
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        assert self._runtime is not None
        assert self._outputs is not None
        self._failure = None
        self._clock_of_drive.restart()
        try:
            minimum = self.settings.min_cameras or len(self._names)
            self._health = Health(self._names, minimum, lambda: self.settings.diagnostics, self._clock_of_drive)
            self._worker = Worker(
                self._runtime,
                self._outputs,
                self._health,
                lambda: self.get_clock().now().nanoseconds,
                self._report_failure,
                minimum=minimum,
                max_rate=lambda: self.settings.max_rate,
                to_rgb=make_raw_decoder() if self.settings.transport == "raw" else raw_to_rgb,
            )
            self._worker.start()
            self._subscribe()
        except Exception as error:  # rclpy would drop it silently
            self._stop()
            return self._fail("activate", error)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker; keep the network loaded."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, the network's memory at once and not at some later garbage collection."""
        self._release()
        gc.collect()
        return_memory()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from whatever state."""
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured, so that the node can be configured again."""
        self._failure = self._failure or "a transition failed; the log has its traceback"
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def bring_up(self) -> None:
        """Configure and activate, as a lifecycle manager would."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def destroy_node(self) -> None:
        """Stop the worker, then remove the node from the graph."""
        self._release()
        super().destroy_node()

    def _fail(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        expected = isinstance(error, BridgeTAError)
        self.get_logger().error(f"cannot {transition}: {error if expected else format_traceback(error)}")
        self._failure = f"cannot {transition}: {error if expected else f'{type(error).__name__}: {error}'}"
        self._tick()  # what watches /diagnostics need not wait
        return TransitionCallbackReturn.FAILURE

    def _load_network(self) -> FallbackRuntime:
        settings = self.settings
        return FallbackRuntime(settings.weights, settings.device, settings.precision, settings.backend)

    def _new_calibration(self) -> LiveCalibration:
        settings = self.settings
        file = Rig.load(Path(settings.calibration_file)) if settings.calibration_file else None
        suffix = "" if settings.transport == "raw" else "/compressed"
        images = {name: self.resolve_topic_name(f"~/input/{name}/image{suffix}") for name in self._names}
        return LiveCalibration(
            self._names,
            settings.base_frame,
            settings.min_cameras or len(self._names),
            file,
            rectified=[name for name, topic in images.items() if topics.is_rectified(topic)],
            tolerance=settings.calibration_tolerance,
        )

    def _subscribe(self) -> None:
        assert self._calibration is not None
        assert self._worker is not None
        assert self._health is not None
        assert self._outputs is not None
        self._inputs = CameraInputs(
            self,
            self.settings,
            self._names,
            self._calibration,
            self._health,
            on_image=self._worker.announce,
            on_set=self._offer,
            on_rig=self._use_rig,
            on_reset=self._handle_time_jump,
        )
        self._use_rig()

    def _offer(self, images: ImageSet[Frame], received_ns: int) -> None:
        assert self._worker is not None
        assert self._outputs is not None
        self._outputs.read_transforms()
        self._worker.offer(images, received_ns)

    def _use_rig(self) -> None:
        assert self._calibration is not None
        assert self._worker is not None
        self._worker.set_rig(self._calibration.rig)

    def _handle_time_jump(self) -> None:
        assert self._worker is not None
        assert self._outputs is not None
        self.get_logger().warning("stamps went back: a bag started over, or a clock was set; forgetting earlier images")
        self._worker.drop_waiting()
        self._outputs.reset()

    def _stop(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        if self._worker is not None:
            self._worker.stop()
        self._inputs = self._worker = self._health = None

    def _release(self) -> None:
        self._stop()
        if self._outputs is not None:
            self._outputs.close()
        self._outputs = self._runtime = self._calibration = None
        self._names = ()

    # Services

    def _reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Load the weights of the parameter; the current network runs until they are loaded."""
        try:
            if self._runtime is None:
                raise BridgeTAError("the node is not configured")
            runtime = self._load_network()
            names = self.settings.choose_cameras(runtime.info.cameras)
            if names != self._names or runtime.grid != self._runtime.grid:
                raise BridgeTAError(
                    f"these weights are for other cameras or another grid ({', '.join(names)}; {runtime.grid})",
                    fix="Clean up and configure to change to them",
                )
            self._runtime = runtime
            if self._worker is not None:
                self._worker.set_runtime(runtime)
        except BridgeTAError as error:
            return _fill_response(response, False, str(error))
        text = (
            f"{self.settings.weights} on {runtime.device}, {runtime.precision}, by {runtime.backend} ({runtime.reason})"
        )
        return _fill_response(response, True, text)

    def _calibrate(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Forget the calibration and read it again, from the file or the topics."""
        try:
            if self._runtime is None:
                raise BridgeTAError("the node is not configured")
            self._calibration = self._new_calibration()
        except BridgeTAError as error:
            return _fill_response(response, False, str(error))
        if self._inputs is not None:
            self._inputs.close()
            self._subscribe()
        if self._health is not None:
            self._health.restart()
        from_file = self._calibration.from_file
        return _fill_response(
            response, True, f"read {self.settings.calibration_file}" if from_file else "waiting for CameraInfo and TF"
        )

    # Diagnostics

    def _tick(self) -> None:
        if self._inputs is not None:
            self._inputs.tick()
        statuses = self.list_statuses()
        now = self.get_clock().now().nanoseconds
        self._diagnostics.publish(messages.make_diagnostics(self._make, statuses, now, self.get_fully_qualified_name()))
        logger = self.get_logger()
        # Of a failed transition the log has said it.
        for status in self._changes.update([status for status in statuses if status.name != "lifecycle"]):
            line = f"{status.name}: {status.message}"
            # One call site for each severity: rclpy ties a call site to the severity of its first call.
            if status.level == ERROR:
                logger.error(line)
            elif status.level == WARN:
                logger.warning(line)
            else:
                logger.info(line)

        remark = self._calibration.remark if self._calibration is not None else None
        if remark and not self._remarked:
            logger.info(f"calibration: {remark}")
        self._remarked = remark or ""

    def list_statuses(self) -> list[Status]:
        """List the statuses for /diagnostics."""
        state = "active" if self._worker else "inactive" if self._runtime else "unconfigured"
        level = OK if self._failure is None else ERROR
        statuses = [Status("lifecycle", level, f"{state}: {self._failure}" if self._failure else state, {})]
        if self._runtime is not None:
            runtime = self._runtime
            on = (str(runtime.device), runtime.backend, runtime.precision)
            statuses.append(describe_network(self.settings.weights, *on, runtime.remarks))
        if self._health is not None:
            statuses.append(self._clock_of_drive.describe(self._health.images))
        of_drive: list[Status] = []
        if self._health is not None and self._calibration is not None:
            calibration = self._calibration
            source = self.settings.calibration_file if calibration.from_file else "CameraInfo and TF"
            coverage = self._worker.coverage if self._worker is not None else ()
            problem, remark = calibration.problem, calibration.remark
            of_drive.append(describe_calibration(calibration.rig, source, problem, remark, coverage))
            of_drive += self._health.list_statuses()
        if self._outputs is not None and self._outputs.local_map is not None:
            of_drive.append(self._outputs.local_map.describe())
        starting = self._health is not None and self._health.is_starting()
        return statuses + (excuse_start(of_drive) if starting else of_drive)

    def _report_failure(self, error: BaseException) -> None:
        # After a shutdown of the context nothing can publish. What fails in every set is reported once.
        if self.context.ok() and repr(error) != self._reported:
            self._reported = repr(error)
            self.get_logger().error(f"unexpected failure: {format_traceback(error)}")


def _fill_response(response: Trigger.Response, success: bool, message: str) -> Trigger.Response:
    response.success, response.message = success, message
    return response
