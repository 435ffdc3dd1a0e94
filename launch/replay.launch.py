"""Play a bag to the live node: start the node, RViz, and `ros2 bag play` once the node is active.

All arguments of bev.launch.py work here too. The grids /bev/ground_truth/<class>, if any, come from the bag; the
others on /bev are the node's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

# Seconds that the player waits between creating its publishers and the first message, so that subscribers discover
# them: camera topics are best effort, and what is published before is lost.
DISCOVERY = 2.0
# Seconds for the node's last results, after the last message of the bag.
LAST_RESULTS = 2.0
# Messages per second on /clock. The node's latencies and ages are as exact as its clock.
CLOCK_RATE = 100

ARGUMENTS: dict[str, tuple[str | None, str]] = {
    "bag": (None, "a bag: its folder, or its .mcap or .db3 file"),
    "rate": ("1.0", "speed, 1 is that of the recording"),
    "loop": ("false", "true: start again at the end, for ever"),
    "start_offset": ("0.0", "seconds of the bag to leave out at its start"),
    "rviz": ("true", "start RViz. Without it the launch ends when the bag has been played"),
}
# Arguments of bev.launch.py that a replay fixes.
FIXED = {"use_sim_time": "the bag's time is the time", "autostart": "the bag starts when the node is active"}


def generate_launch_description() -> LaunchDescription:
    """Describe the launch for `ros2 launch`."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    declared += [
        DeclareLaunchArgument(name, default_value="true", choices=["true"], description=f"Always true: {why}")
        for name, why in FIXED.items()
    ]
    node = PythonLaunchDescriptionSource(str(Path(__file__).absolute().with_name("bev.launch.py")))
    return LaunchDescription(
        [
            *declared,
            OpaqueFunction(function=_check_arguments),
            RegisterEventHandler(
                OnStateTransition(
                    start_state="activating",
                    goal_state="active",
                    entities=[OpaqueFunction(function=_start_player)],
                    handle_once=True,
                )
            ),
            RegisterEventHandler(
                OnStateTransition(
                    start_state="configuring",
                    goal_state="unconfigured",
                    entities=[OpaqueFunction(function=_give_up)],
                )
            ),
            IncludeLaunchDescription(node),
        ]
    )


def _check_arguments(context: LaunchContext) -> None:
    """Refuse wrong arguments before anything starts. Raises ValueError."""
    bag = _read_bag(context)
    if not bag.exists():
        raise ValueError(f"bag {bag} does not exist")
    if bag.is_dir() and not (bag / "metadata.yaml").is_file():
        raise ValueError(f"bag {bag} is a folder without metadata.yaml, so it is no bag")
    _read_number(context, "rate", above=0.0)
    _read_number(context, "start_offset", above=None)
    _read_boolean(context, "loop")
    _read_boolean(context, "rviz")


def _start_player(context: LaunchContext) -> list[Any]:
    play = ["ros2", "bag", "play", str(_read_bag(context)), "--disable-keyboard-controls"]
    offset = _read_number(context, "start_offset", above=None)
    command = [*play, "--clock", str(CLOCK_RATE), "--delay", str(DISCOVERY)]
    command += ["--rate", str(_read_number(context, "rate", above=0.0))]
    actions = []
    if offset > 0:
        command += ["--start-offset", str(offset)]
        # /tf_static is at the start of the bag, in the part that is left out. A second player keeps it latched.
        static = [*play, "--topics", "/tf_static", "--loop", "--delay", "1", "--log-level", "warn"]
        static += ["--remap", "__node:=tf_static_player"]  # two players of the same name would share their services
        actions.append(ExecuteProcess(cmd=static, name="tf_static", output="log"))
    if _read_boolean(context, "loop"):
        command.append("--loop")
    actions.append(ExecuteProcess(cmd=command, name="ros2_bag_play", output="screen", on_exit=_end_replay))
    return actions


def _end_replay(event: ProcessExited, context: LaunchContext) -> list[Any]:
    if context.is_shutdown:
        return []
    if event.returncode:
        raise RuntimeError(f"ros2 bag play ended with exit code {event.returncode}; its last messages say why")
    if _read_boolean(context, "rviz"):
        return [LogInfo(msg="The bag has been played. Ctrl-C ends the launch.")]
    return [TimerAction(period=LAST_RESULTS, actions=[Shutdown(reason="the bag has been played")])]


def _give_up(context: LaunchContext) -> None:
    raise RuntimeError("the node could not be configured, so the bag is not played; the node's messages say why")


def _read_bag(context: LaunchContext) -> Path:
    return Path(LaunchConfiguration("bag").perform(context)).expanduser()


def _read_number(context: LaunchContext, name: str, above: float | None) -> float:
    """Read a number above `above`, or not negative if that is None. Raises ValueError."""
    value_text = LaunchConfiguration(name).perform(context)
    try:
        value = float(value_text)
    except ValueError as error:
        raise ValueError(f"{name} is {value_text!r}, not a number") from error
    if not (value >= 0 if above is None else value > above):
        raise ValueError(
            f"{name} is {value_text}, which must be {'0 or more' if above is None else f'above {above:g}'}"
        )
    return value


def _read_boolean(context: LaunchContext, name: str) -> bool:
    value = LaunchConfiguration(name).perform(context).lower()
    if value not in ("true", "false"):
        raise ValueError(f"{name} is {value!r}, not true or false")
    return value == "true"
