"""Launch the node on a vehicle, with its parameters and camera topics, and bring it to the state active.

`ros2 launch bridgeta_ros bev.launch.py --show-args` lists the arguments. The launch ends when the node's process
ends, with an error when that process failed, so that a supervisor can see it and restart it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import PackageNotFoundError
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch.substitutions.substitution_failure import SubstitutionFailure
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.ros_adapters import get_ros_node
from launch_ros.substitutions import ExecutableInPackage
from lifecycle_msgs.msg import Transition

# The layout is the same beside the sources and in share/bridgeta_ros, where an installation puts it.
CONFIG = Path(__file__).absolute().parents[1] / "config"

_FILE = "empty: as in params_file"
ARGUMENTS: dict[str, tuple[str, str]] = {
    "params_file": (str(CONFIG / "bev_node.yaml"), "YAML file with the node's parameters"),
    "cameras_file": (
        str(CONFIG / "nuscenes_cameras.yaml"),
        "YAML file that names the cameras and their topics; empty: parameter `cameras`, topics ~/input/<camera>/...",
    ),
    "namespace": ("", "namespace of the node, its outputs and RViz"),
    "node_name": ("bev_node", "name of the node"),
    "weights": ("", f"a .safetensors file, or the name of weights that ship; {_FILE}"),
    "device": ("", f"auto, cpu, cuda, cuda:1, ...; {_FILE}"),
    "backend": ("", f"auto, torch, openvino, onnxruntime or tensorrt: what computes the network; {_FILE}"),
    "precision": ("", f"float32, float16, bfloat16 or int8; {_FILE}"),
    "transport": ("", f"compressed or raw, the type of the camera images; {_FILE}"),
    "min_cameras": ("", f"fewest cameras that a set is run with, 0: all; {_FILE}"),
    "local_map": ("", f"true or false: fuse successive grids into bev/local_map/<class>; {_FILE}"),
    "use_sim_time": ("", f"true or false: take the time from /clock; {_FILE}"),
    "autostart": ("true", "configure and activate the node; false leaves that to a lifecycle manager"),
    "log_level": ("", "debug, info, warn, error or fatal; LOGGER:=LEVEL for one logger, such as bev_node:=debug"),
    "rviz": ("false", "start RViz"),
    "rviz_config": (str(CONFIG / "bev.rviz"), "RViz's layout"),
    "rviz_required": ("false", "end the launch when RViz is closed"),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the launch for `ros2 launch`."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[Any]:
    """Make the actions from the arguments. Raises ValueError that names the argument or file at fault."""
    values = {name: LaunchConfiguration(name).perform(context).strip() for name in ARGUMENTS}
    # All that may fail comes before the first action: what fails after the node has been started leaves it behind.
    if _parse_boolean("rviz", values["rviz"]):
        _find_executable(context, "rviz2", "rviz2", "Install ros-$ROS_DISTRO-rviz2, or launch with rviz:=false")
    _find_executable(context, "bridgeta_ros", "bev_node", "Source the workspace in which colcon has built it")
    cameras = _read_cameras(_find_file("cameras_file", values)) if values["cameras_file"] else {}
    remappings = []
    for name, (image, info) in cameras.items():
        topic = f"~/input/{name}"
        # The parameter transport, which the params_file may set, decides which image topic the node subscribes to.
        remappings += [(f"{topic}/image", image), (f"{topic}/image/compressed", f"{image}/compressed")]
        remappings.append((f"{topic}/camera_info", info))
    _check_middleware(context)
    node = LifecycleNode(
        package="bridgeta_ros",
        executable="bev_node",
        name=values["node_name"],
        namespace=values["namespace"],
        parameters=[str(_find_file("params_file", values)), _make_overrides(values, list(cameras))],
        remappings=remappings,
        ros_arguments=["--log-level", values["log_level"]] if values["log_level"] else None,
        output="screen",
    )
    actions = [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=_end_launch(values["node_name"])))]
    if _parse_boolean("autostart", values["autostart"]):
        path = "/".join(filter(None, [*values["namespace"].split("/"), values["node_name"]]))
        actions += _make_bring_up(node, f"/{path}")
    actions.append(node)
    if _parse_boolean("rviz", values["rviz"]):
        actions += _start_rviz(values)
    return actions


def _make_overrides(values: dict[str, str], cameras: list[str]) -> dict[str, Any]:
    """Return the parameters that the arguments set, over those of the params_file."""
    # The launch brings the node up itself. If the node did so too, one of the two would fail.
    parameters: dict[str, Any] = {"autostart": False}
    if cameras:
        parameters["cameras"] = cameras
    kinds: dict[str, tuple[str, Callable[[str, str], Any]]] = {
        "weights": ("weights", _parse_text),
        "device": ("device", _parse_text),
        "backend": ("backend", _parse_text),
        "precision": ("precision", _parse_text),
        "transport": ("transport", _parse_text),
        "min_cameras": ("min_cameras", _parse_whole_number),
        "local_map": ("local_map.enabled", _parse_boolean),
        "use_sim_time": ("use_sim_time", _parse_boolean),
    }
    for argument, (parameter, convert) in kinds.items():
        if values[argument]:
            parameters[parameter] = convert(argument, values[argument])
    return parameters


def _make_bring_up(node: LifecycleNode, name: str) -> list[Any]:
    """Make handlers that configure the node `name` once its process runs, and activate it once it is configured."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    failed = (
        f"{name} could not be configured and says why above. Once that is mended: ros2 lifecycle set {name} configure"
    )
    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)], handle_once=True)
        ),
        # Only once, and only from configuring: a node that is deactivated later has to stay inactive.
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[change(Transition.TRANSITION_ACTIVATE)],
                handle_once=True,
            )
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="unconfigured",
                entities=[LogInfo(msg=failed)],
            )
        ),
    ]


def _start_rviz(values: dict[str, str]) -> list[Any]:
    """Start RViz in the node's namespace; the layout names the node's outputs relative to it."""
    sim_time = values["use_sim_time"] and _parse_boolean("use_sim_time", values["use_sim_time"])
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=values["namespace"],
        arguments=["-d", str(_find_file("rviz_config", values))],
        parameters=[{"use_sim_time": bool(sim_time)}],
        output="log",
    )
    if not _parse_boolean("rviz_required", values["rviz_required"]):
        return [rviz]
    closed = Shutdown(reason="RViz was closed")
    return [RegisterEventHandler(OnProcessExit(target_action=rviz, on_exit=[closed])), rviz]


def _end_launch(name: str) -> Callable[[ProcessExited, LaunchContext], Any]:
    """Make a handler that ends the launch when a process ends by itself."""

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Any]:
        if context.is_shutdown:
            return []
        if event.returncode:
            # Only an error raised here makes `ros2 launch` return 1 instead of 0.
            raise RuntimeError(f"{name} ended with exit code {event.returncode}; its last messages say why")
        return [Shutdown(reason=f"{name} has ended")]

    return on_exit


def _read_cameras(path: Path) -> dict[str, tuple[str, str]]:
    """Read camera name -> (base image topic, CameraInfo topic) from a cameras_file, in its order.

    Raises ValueError that names the file and the camera at fault.
    """
    where = f"cameras_file {path}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{where} is not YAML ({' '.join(str(error).split())})") from error
    cameras = content.get("cameras") if isinstance(content, dict) else None
    if not isinstance(cameras, dict) or not cameras:
        raise ValueError(f"{where} has no cameras; it needs `cameras:` and below it NAME: {{image: TOPIC}}")
    result = {}
    for name, entry in cameras.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", str(name)):
            raise ValueError(f"{where}: camera {name!r} cannot be part of a topic: letters, digits and _ only")
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise ValueError(f"{where}: camera {name} needs `image: TOPIC`")
        unknown = sorted(set(map(str, entry)) - {"image", "camera_info"})
        if unknown:
            raise ValueError(f"{where}: camera {name} has {', '.join(unknown)}; image and camera_info are known")
        image = entry["image"].removesuffix("/compressed")
        info = entry.get("camera_info", f"{image.rpartition('/')[0]}/camera_info")
        if not isinstance(info, str) or not info:
            raise ValueError(f"{where}: camera_info of camera {name} is {info!r}, not a topic")
        result[str(name)] = (image, info)
    return result


def _find_file(argument: str, values: dict[str, str]) -> Path:
    path = Path(values[argument]).expanduser()
    if not path.is_file():
        raise ValueError(f"{argument} {values[argument] or '(empty)'} is not a file")
    return path


def _check_middleware(context: LaunchContext) -> None:
    """Create the node by which the launch changes the state of ours. Raises ValueError when the middleware refuses."""
    try:
        get_ros_node(context)
    except RuntimeError as error:
        settings = [
            f"{name}={os.environ[name]}" for name in ("RMW_IMPLEMENTATION", "CYCLONEDDS_URI") if name in os.environ
        ]
        check = ", ".join(settings) or "the network interfaces"
        raise ValueError(f"the middleware creates no node; its own messages stand above. Check {check}") from error


def _find_executable(context: LaunchContext, package: str, executable: str, fix: str) -> None:
    """Check that an executable is where a node action looks for it. Raises ValueError."""
    try:
        ExecutableInPackage(package=package, executable=executable).perform(context)
    except (PackageNotFoundError, SubstitutionFailure) as error:
        raise ValueError(f"{package} is not installed here. {fix}") from error


def _parse_text(argument: str, value: str) -> str:
    return value


def _parse_whole_number(argument: str, value: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{argument} is {value!r}, not a whole number")
    return int(value)


def _parse_boolean(argument: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{argument} is {value!r}, not true or false")
    return value.lower() == "true"
