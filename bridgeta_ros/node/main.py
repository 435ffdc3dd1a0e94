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
    # Everything is closed by now. Unloading torch and transformers would take the interpreter another second, for
    # which a supervisor would wait.
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
    # rclpy restores the signal handlers that it found, and a second SIGINT (launch sends one beside the terminal's)
    # must not interrupt the shutdown.
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_IGN)
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # what rclpy raises for a wrong argument or a missing params file
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
        pass  # the normal end
    finally:
        executor.shutdown()


def spin_some(node: BevNode, executor: SingleThreadedExecutor, timeout: float | None = None) -> None:
    """Run callbacks for `timeout` seconds, or until one fails; log a failure instead of ending the node.

    rclpy raises what a callback raised. Otherwise a transition that the state does not allow, requested over the
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
        if node.context.ok():  # otherwise the shutdown interrupted rclpy
            node.get_logger().error(f"in a callback: {format_traceback(error)}")


if __name__ == "__main__":
    main()
