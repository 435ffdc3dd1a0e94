"""The executable `bev_node`: arguments, signals and the loop of its process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridgeta_core.utils.errors import BridgeTAError

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor

    from bridgeta_ros.node.bev_node import BevNode


def main() -> None:
    """Entry point; does not return."""
    try:
        code = run()
    except KeyboardInterrupt:  # while the libraries load
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed by now. To take torch and transformers apart would cost the interpreter another second,
    # and a supervisor that waits for the end of a stack counts those.
    os._exit(code)


def run(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown of the context; return the exit status."""
    try:
        # Imported here, so that a Python without ROS is answered in one line.
        import rclpy
        from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

        from bridgeta_ros.node.bev_node import NODE_NAME, BevNode
    except ModuleNotFoundError as error:
        print(
            f"bev_node: no module {error.name}. It needs ROS 2 and this package in one Python: source "
            "/opt/ros/DISTRO/setup.bash, and see docs/ros2.md for the environment",
            file=sys.stderr,
        )
        return 2
    # rclpy hands the signals back as it found them, and a second SIGINT, launch's own beside that of the terminal, must
    # not cut the end short.
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_IGN)
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # rclpy's own are of this type: a wrong argument, a params file that is not there
        print(f"{NODE_NAME}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    try:
        try:
            node = BevNode()
        except (BridgeTAError, InvalidParameterTypeException, InvalidParameterValueException) as error:
            print(f"{NODE_NAME}: {error}", file=sys.stderr)
            return 2
        try:
            if node.settings.autostart:
                node.bring_up()
            _spin(node)
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return 0


def _spin(node: BevNode) -> None:
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok():
            spin_some(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # the ordinary end
    finally:
        executor.shutdown()


def spin_some(node: BevNode, executor: SingleThreadedExecutor, timeout: float | None = None) -> None:
    """Run callbacks for `timeout` seconds, or until one fails; log a failure instead of ending the node.

    rclpy raises what a callback raised, its own too: a transition that the state does not allow, asked for over the
    lifecycle service, would end the process.
    """
    from rclpy.executors import ExternalShutdownException

    from bridgeta_ros.node.bev_node import format_traceback

    try:
        if timeout is None:
            executor.spin()
        else:
            executor.spin_once(timeout_sec=timeout)
    except (KeyboardInterrupt, ExternalShutdownException):
        raise
    except Exception as error:
        if node.context.ok():  # else it is the end, that rclpy came upon in the middle of its work
            node.get_logger().error(f"in a callback: {format_traceback(error)}")
