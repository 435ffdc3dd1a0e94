"""The executable `bev_node`: says what is missing before anything is loaded, and ends at once when it is told to."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point; does not return."""
    try:
        code = _run()
    except KeyboardInterrupt:  # while the libraries load
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed by now. To take torch and transformers apart would cost the interpreter another second,
    # and a supervisor that waits for the end of a stack counts those.
    os._exit(code)


def _run() -> int:
    try:
        from bridgeta_ros.node.bev_node import run
    except ModuleNotFoundError as error:
        print(
            f"bev_node: no module {error.name}. It needs ROS 2 and this package in one Python: source "
            "/opt/ros/DISTRO/setup.bash, and see docs/ros2.md for the environment",
            file=sys.stderr,
        )
        return 2
    return run()


if __name__ == "__main__":
    main()
