"""The executable `bev_node`: arguments, signals and the loop of its process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridgeta_core.cli.interrupts import end_on_signals, end_within
from bridgeta_core.utils.errors import BridgeTAError

if TYPE_CHECKING:
    from bridgeta_ros.node.bev_node import BevNode
    from bridgeta_ros.node.graph.executor import MessageExecutor

_LONGEST_END = 3.0  # s. A set in a large network may take longer, nobody waits for it, and launch kills after a while.
_MIDDLEWARE_SETTINGS = (
    "RMW_IMPLEMENTATION",
    "CYCLONEDDS_URI",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "ZENOH_SESSION_CONFIG_URI",
    "ROS_DISCOVERY_SERVER",
    "ROS_STATIC_PEERS",
    "ROS_DOMAIN_ID",
)


def main() -> None:
    """Entry point; does not return."""
    end_on_signals("bev_node", (signal.SIGINT, signal.SIGTERM))
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed by now. Unloading torch and transformers would take the interpreter another second, for
    # which a supervisor would wait.
    os._exit(code)


def run(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown of the context; return the exit status."""
    # Asked first: where its library is missing, the import of rclpy ends the process.
    middleware = os.environ.get("RMW_IMPLEMENTATION", "")
    if middleware and not _has_library(middleware):
        print(
            f"bev_node: RMW_IMPLEMENTATION is {middleware}, of which there is no library here. Install "
            f"ros-$ROS_DISTRO-{middleware.replace('_', '-')}, source that workspace, or unset the variable",
            file=sys.stderr,
        )
        return 2
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
        except RuntimeError as error:  # rclpy's RCLError, when the middleware creates no node
            print(f"{NODE_NAME}: {_describe_refusal(error)}", file=sys.stderr)
            return 2
        try:
            if node.settings.autostart:
                node.bring_up()
            _spin(node)
        except RuntimeError:  # rclpy's RCLError
            if node.context.ok():  # otherwise the shutdown came while the node was being configured
                raise
        finally:
            with end_within(_LONGEST_END):
                node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return 0


def _has_library(middleware: str) -> bool:
    try:
        ctypes.CDLL(f"lib{middleware}.so")
    except OSError:
        return False
    return True


def _describe_refusal(error: RuntimeError) -> str:
    """Say which settings the middleware was given when it refused; its own words are often none."""
    settings = ", ".join(f"{name}={os.environ[name]}" for name in _MIDDLEWARE_SETTINGS if os.environ.get(name))
    return (
        f"the middleware creates no node ({' '.join(str(error).split())}). Its own messages may stand above. Check "
        f"{settings or 'the network interfaces and ROS_DOMAIN_ID'}; docs/ros2.md has a file for Cyclone DDS that works"
    )


def _spin(node: BevNode) -> None:
    import rclpy
    from rclpy.executors import ExternalShutdownException

    from bridgeta_ros.node.graph.executor import MessageExecutor

    executor = MessageExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok():
            spin_some(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # the normal end
    finally:
        executor.shutdown()


def spin_some(node: BevNode, executor: MessageExecutor) -> None:
    """Run callbacks until the executor is shut down or one fails; log a failure instead of ending the node.

    rclpy raises what a callback raised. Otherwise a transition that the state does not allow, requested over the
    lifecycle service, would end the process.
    """
    from rclpy.executors import ExternalShutdownException

    from bridgeta_ros.node.bev_node import format_traceback

    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        raise
    except Exception as error:
        if node.context.ok():  # otherwise the shutdown interrupted rclpy
            node.get_logger().error(f"in a callback: {format_traceback(error)}")


if __name__ == "__main__":
    main()
