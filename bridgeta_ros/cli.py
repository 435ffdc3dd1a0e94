"""The entry point of `bridgeta`; bridgeta_ros.commands has its commands."""

from __future__ import annotations

from bridgeta_core.cli.interrupts import end_on_signals


def main() -> None:
    """Run the command line."""
    end_on_signals("bridgeta")
    from bridgeta_ros.commands import app  # a third of a second, in which Ctrl-C would be a traceback

    app()
