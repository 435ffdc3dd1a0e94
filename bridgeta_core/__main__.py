"""Run the commands that need neither ROS nor the synthetic world: `python -m bridgeta_core`."""

from bridgeta_core.cli.commands import app

if __name__ == "__main__":
    app(prog_name="python -m bridgeta_core")
