"""The report of a check: its items, each with a severity, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bridgeta_core.data.check.content import Fault

_SHOWN = 20  # damaged files that are listed one by one


class Severity(Enum):
    """How bad an item is. A note is worth knowing but prevents nothing."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


_COLOURS = {Severity.OK: "green", Severity.NOTE: "yellow", Severity.PROBLEM: "bold red"}


@dataclass(frozen=True)
class Item:
    """One item: its severity and name, what is there or missing, and what to do about it (empty: nothing)."""

    severity: Severity
    name: str
    what: str
    fix: str = ""


@dataclass
class Report:
    """All items in the order in which they were checked, and the verdict: one sentence on what to do next.

    `bad_files` are the paths, relative to the root, of files to extract again: missing, empty or damaged.
    """

    items: list[Item] = field(default_factory=list)
    bad_files: list[str] = field(default_factory=list)
    verdict: str = ""

    def add_ok(self, name: str, what: str) -> None:
        """Add an item that is as it should be."""
        self.items.append(Item(Severity.OK, name, what))

    def add_note(self, name: str, what: str, fix: str = "") -> None:
        """Add an item that is worth knowing."""
        self.items.append(Item(Severity.NOTE, name, what, fix))

    def add_problem(self, name: str, what: str, fix: str) -> None:
        """Add an item that prevents training."""
        self.items.append(Item(Severity.PROBLEM, name, what, fix))

    @property
    def problems(self) -> list[Item]:
        """The items that prevent training."""
        return [item for item in self.items if item.severity is Severity.PROBLEM]

    @property
    def exit_code(self) -> int:
        """1 when there is a problem, else 0."""
        return 1 if self.problems else 0

    def render(self) -> RenderableType:
        """Render the items as a table."""
        table = Table(show_edge=False, pad_edge=False)
        table.add_column("State")
        table.add_column("Item", no_wrap=True)
        table.add_column("What there is", ratio=3, overflow="fold")
        table.add_column("What to do", ratio=2, overflow="fold")
        for item in self.items:
            severity = Text(item.severity.value, style=_COLOURS[item.severity])
            table.add_row(severity, item.name, Text(item.what), Text(item.fix))
        return Group(table, Text())


def add_damaged(report: Report, faults: Sequence[Fault], remedy: str) -> None:
    """Add the damaged files, the first ones one by one; `remedy` is what to do where a fault does not say."""
    for fault in faults[:_SHOWN]:
        report.add_problem("damaged", f"{fault.path}: {fault.what}", fault.fix or remedy)
    if len(faults) > _SHOWN:
        report.add_problem("damaged", f"{len(faults):,} files in all; --list FILE writes their paths", remedy)
    report.bad_files = sorted({*report.bad_files, *(fault.path for fault in faults)})


def describe_problem(report: Report) -> str:
    """Say what to do before anything can be trained."""
    problem = report.problems[0]
    others = len(report.problems) - 1
    rest = f" (and {others} more problem{'s' * (others > 1)} above)" if others else ""
    return f"Training cannot start yet. First: {problem.name}: {problem.what}{rest}. {problem.fix}."
