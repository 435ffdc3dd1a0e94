"""What a check finds, item by item, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


class Severity(Enum):
    """How an item is: a note is worth knowing but stands in the way of nothing."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


_COLOURS = {Severity.OK: "green", Severity.NOTE: "yellow", Severity.PROBLEM: "bold red"}


@dataclass(frozen=True)
class Finding:
    """One item: its state, what is there or is missing, and what to do about it (empty when there is nothing to do)."""

    state: Severity
    item: str
    what: str
    fix: str = ""


@dataclass
class Report:
    """All findings, in the order in which they were made, and the one sentence that they come to.

    `bad_files` are the paths, relative to the root, of files that have to be extracted again: missing, empty or
    damaged.
    """

    findings: list[Finding] = field(default_factory=list)
    bad_files: list[str] = field(default_factory=list)
    verdict: str = ""

    def ok(self, item: str, what: str) -> None:
        """Add an item that is as it should be."""
        self.findings.append(Finding(Severity.OK, item, what))

    def note(self, item: str, what: str, fix: str = "") -> None:
        """Add an item that is worth knowing."""
        self.findings.append(Finding(Severity.NOTE, item, what, fix))

    def problem(self, item: str, what: str, fix: str) -> None:
        """Add an item that stands in the way of training."""
        self.findings.append(Finding(Severity.PROBLEM, item, what, fix))

    @property
    def problems(self) -> list[Finding]:
        """The items that stand in the way."""
        return [finding for finding in self.findings if finding.state is Severity.PROBLEM]

    @property
    def exit_code(self) -> int:
        """1 when there is a problem, else 0."""
        return 1 if self.problems else 0

    def page(self) -> RenderableType:
        """The findings as a table."""
        table = Table(show_edge=False, pad_edge=False)
        table.add_column("State")
        table.add_column("Item", no_wrap=True)
        table.add_column("What there is", ratio=3, overflow="fold")
        table.add_column("What to do", ratio=2, overflow="fold")
        for finding in self.findings:
            state = Text(finding.state.value, style=_COLOURS[finding.state])
            table.add_row(state, finding.item, Text(finding.what), Text(finding.fix))
        return Group(table, Text())
