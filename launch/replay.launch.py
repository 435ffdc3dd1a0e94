"""A bag played to the live node: the node, RViz, and `ros2 bag play` once the node is active.

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

# Seconds for which the player waits between making its publishers and the first message, so that the subscribers
# find them: camera topics are best effort, and what is published before is lost.
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
# What bev.launch.py offers and a replay must have.
FIXED = {"use_sim_time": "the bag's time is the time", "autostart": "the bag starts when the node is active"}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
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
            OpaqueFunction(function=_check),
            RegisterEventHandler(
                OnStateTransition(
                    start_state="activating",
                    goal_state="active",
                    entities=[OpaqueFunction(function=_play)],
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


def _check(context: LaunchContext) -> None:
    """Refuse wrong arguments before anything starts. Raises ValueError."""
    bag = _bag(context)
    if not bag.exists():
        raise ValueError(f"bag {bag} does not exist")
    if bag.is_dir() and not (bag / "metadata.yaml").is_file():
        raise ValueError(f"bag {bag} is a folder without metadata.yaml, so no bag")
    _number(context, "rate", above=0.0)
    _number(context, "start_offset", above=None)
    _boolean(context, "loop")
    _boolean(context, "rviz")


def _play(context: LaunchContext) -> list[Any]:
    play = ["ros2", "bag", "play", str(_bag(context)), "--disable-keyboard-controls"]
    offset = _number(context, "start_offset", above=None)
    command = [*play, "--clock", str(CLOCK_RATE), "--delay", str(DISCOVERY)]
    command += ["--rate", str(_number(context, "rate", above=0.0))]
    actions = []
    if offset > 0:
        command += ["--start-offset", str(offset)]
        # /tf_static stands at the start of a bag, in the part that is left out. A second player keeps it latched.
        static = [*play, "--topics", "/tf_static", "--loop", "--delay", "1", "--log-level", "warn"]
        static += ["--remap", "__node:=tf_static_player"]  # two players of one name would share their services
        actions.append(ExecuteProcess(cmd=static, name="tf_static", output="log"))
    if _boolean(context, "loop"):
        command.append("--loop")
    actions.append(ExecuteProcess(cmd=command, name="ros2_bag_play", output="screen", on_exit=_played))
    return actions


def _played(event: ProcessExited, context: LaunchContext) -> list[Any]:
    if context.is_shutdown:
        return []
    if event.returncode:
        raise RuntimeError(f"ros2 bag play ended with exit code {event.returncode}; its last messages say why")
    if _boolean(context, "rviz"):
        return [LogInfo(msg="The bag has been played. Ctrl-C ends the launch.")]
    return [TimerAction(period=LAST_RESULTS, actions=[Shutdown(reason="the bag has been played")])]


def _give_up(context: LaunchContext) -> None:
    raise RuntimeError("the node could not be configured, so the bag is not played; the node's messages say why")


def _bag(context: LaunchContext) -> Path:
    return Path(LaunchConfiguration("bag").perform(context)).expanduser()


def _number(context: LaunchContext, name: str, above: float | None) -> float:
    """An argument's value: above `above`, or not negative where that is None. Raises ValueError."""
    text = LaunchConfiguration(name).perform(context)
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}, not a number") from error
    if not (value >= 0 if above is None else value > above):
        raise ValueError(f"{name} is {text}, which must be {'0 or more' if above is None else f'above {above:g}'}")
    return value


def _boolean(context: LaunchContext, name: str) -> bool:
    text = LaunchConfiguration(name).perform(context).lower()
    if text not in ("true", "false"):
        raise ValueError(f"{name} is {text!r}, not true or false")
    return text == "true"
