"""Run the commands that need neither ROS nor the synthetic world: `python -m bridgeta_core`."""

from __future__ import annotations

from bridgeta_core.cli.interrupts import end_on_signals

if __name__ == "__main__":
    end_on_signals("bridgeta")
    from bridgeta_core.cli.commands import app

    app(prog_name="python -m bridgeta_core")
