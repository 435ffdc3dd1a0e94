"""Read the grids that `bridgeta replay` wrote: `python examples/read_result_bag.py out/demo/bev`. No ROS is needed."""

import sys
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader


def main(bag: str) -> None:
    """Print how much drivable area each grid has."""
    with AnyReader([Path(bag)]) as reader:
        connections = [c for c in reader.connections if c.topic == "/bev/drivable_area"]
        for connection, _, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)  # nav_msgs/OccupancyGrid
            info, stamp = message.info, message.header.stamp
            percent = np.asarray(message.data).reshape(info.height, info.width)  # row: y, column: x; -1 is unknown
            area = (percent >= 50).sum() * info.resolution**2
            print(f"{stamp.sec}.{stamp.nanosec:09d}: {area:.0f} m2 drivable, {(percent < 0).mean():.0%} unknown")


if __name__ == "__main__":
    main(*sys.argv[1:])
