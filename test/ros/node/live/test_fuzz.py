"""Nonsense on every topic does not stop the node, which works again when sense comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

NUMBERS = (0.0, 1.0, -1.0, 1e-300, 1e300, np.nan, np.inf, -np.inf, 3.5e8)
FRAMES = ("", "cam_front", "/cam_front", "base_link", "map", "no such frame", "ä" * 50)
TEXTS = ("", "jpeg", "rgb8; jpeg compressed bgr8", "plumb_bob", "equidistant", "16UC1", "\x7f")


def draw_value(rng: np.random.Generator, kind: str) -> Any:
    """Draw a value of a field type, rarely a sensible one."""
    if kind.startswith("sequence<uint8"):
        return rng.integers(0, 256, rng.integers(0, 200), dtype=np.uint8).tobytes()
    if kind.startswith("sequence<double"):
        return [float(v) for v in rng.choice(NUMBERS, rng.integers(0, 12))]
    if kind.startswith("double["):
        return rng.choice(NUMBERS, int(kind[7:-1]))
    if kind == "double":
        return float(rng.choice(NUMBERS))
    if kind.startswith("uint"):
        return int(rng.choice((0, 1, 7, 160, 2**8 - 1 if kind == "uint8" else 2**32 - 1)))
    if kind.startswith("int32"):
        return int(rng.choice((0, 1, 2**31 - 1)))
    return bool(rng.integers(2)) if kind == "boolean" else None


def scramble(message: Any, rng: np.random.Generator) -> Any:
    """Fill all fields of a message and of those within."""
    for name, kind in message.get_fields_and_field_types().items():
        if kind == "string":
            setattr(message, name, str(rng.choice(FRAMES if "frame" in name else TEXTS)))
        elif (value := draw_value(rng, kind)) is not None:
            setattr(message, name, value)
        elif kind.startswith("sequence<"):
            from geometry_msgs.msg import TransformStamped

            setattr(message, name, [scramble(TransformStamped(), rng) for _ in range(rng.integers(0, 4))])
        elif hasattr(field := getattr(message, name), "get_fields_and_field_types"):
            scramble(field, rng)
            if name == "stamp":
                field.nanosec = min(field.nanosec, 999_999_999)
    return message


@pytest.mark.parametrize("transport", ["compressed", "raw"])
@pytest.mark.parametrize("seed", range(3))
def test_nonsense_on_every_topic_does_not_end_the_node(bench: Any, seed: int, transport: str) -> None:
    from ros_bench import Vehicle
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from std_srvs.srv import Trigger
    from tf2_msgs.msg import TFMessage

    node = bench.start(transport=transport, min_cameras=1, lazy=False, local_map__enabled=True)
    vehicle = bench.vehicle(calibrated=False)
    pictures = vehicle.raw if transport == "raw" else vehicle.images
    bench.until(lambda: all(p.get_subscription_count() for p in [*pictures.values(), *vehicle.infos.values()]))
    rng = np.random.default_rng(seed)
    kind = Image if transport == "raw" else CompressedImage
    liar = Vehicle(bench.node)
    bench.until(lambda: liar.tf_static.get_subscription_count())
    for _ in range(60):
        for name, publisher in pictures.items():
            vehicle.infos[name].publish(scramble(CameraInfo(), rng))
            publisher.publish(scramble(kind(), rng))
        vehicle.tf.publish(scramble(TFMessage(), rng))
        liar.tf_static.publish(scramble(TFMessage(), rng))
        bench.pause(0.005)
    assert bench.state(node) == "active"
    if transport == "compressed":
        # The publisher that hung base_link on a camera is gone, but not its transforms: calibrate again.
        bench.node.destroy_publisher(liar.tf_static)
        assert bench.call(Trigger, "/bev_node/calibrate").success
        bench.until(lambda: all(p.get_subscription_count() for p in vehicle.infos.values()))
        vehicle.publish_tf()
        vehicle.publish_infos()
        now = bench.node.get_clock().now().nanoseconds
        bench.drive(vehicle, lambda: any(stamp >= now for stamp in bench.listener.stamps()))
