"""`python -m date status`: the runs of a tier as a table, plain lines or JSON, once or again and again."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from date.formatting import format_duration
from date.results import utc
from date.runs.overview import Overview
from date.runs.state import FINISHED
from date.runs.working import STATES, RunStatus

if TYPE_CHECKING:
    from rich.console import RenderableType

COLOURS = {
    **dict.fromkeys(STATES, "green"),
    **{"running": "cyan", "stalled": "red", "dead": "red", "failed": "red"},
    **{"interrupted": "yellow", "stale": "yellow", "waiting": "bright_black"},
}
COLUMNS = ("training", "seed", "state", "step", "left", "AP", "where", "")


def summary(tier: str, statuses: Sequence[RunStatus]) -> str:
    """Return the numbers of runs by state and the longest time left, in a line."""
    counts = Counter(status.state for status in statuses)
    parts = [f"{counts[state]} {state}" for state in (*reversed(FINISHED), *STATES[: -len(FINISHED)]) if counts[state]]
    etas = [status.eta_seconds for status in statuses if status.eta_seconds is not None]
    left = f"; the longest running needs {format_duration(max(etas))} more" if etas else ""
    return f"{tier}: {', '.join(parts)} of {len(statuses)}{left}"


def _cells(status: RunStatus) -> tuple[str, ...]:
    notes = [status.reason] if status.reason else []
    if status.state in ("failed", "dead") and status.log:
        notes.append(f"log: {status.log}")
    if status.older:
        running = f" ({status.older_running} running)" if status.older_running else ""
        notes.append(f"{status.older} older{running}")
    return (
        status.training,
        str(status.seed),
        status.state,
        "" if status.step is None else f"{status.step}/{status.steps}" if status.steps else str(status.step),
        "" if status.eta_seconds is None else format_duration(status.eta_seconds),
        "" if status.ap is None else f"{status.ap:.1f}",
        " ".join(filter(None, (status.host, status.job and f"job {status.job}"))),
        "; ".join(notes),
    )


def plain(tier: str, statuses: Sequence[RunStatus]) -> str:
    """Return the summary and one aligned line per run."""
    rows = [COLUMNS, *map(_cells, statuses)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([summary(tier, statuses), *lines])


def table(tier: str, statuses: Sequence[RunStatus]) -> RenderableType:
    """Return the summary and a table for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(*COLUMNS, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for status in statuses:
        cells = [Text(cell) for cell in _cells(status)]
        cells[2].stylize(COLOURS[status.state])
        shown.add_row(*cells)
    return Group(Text(summary(tier, statuses), style="bold"), shown)


def as_json(tier: str, statuses: Sequence[RunStatus]) -> str:
    """Return all that is known as JSON."""
    runs = [dataclasses.asdict(status) for status in statuses]
    return json.dumps({"tier": tier, "summary": summary(tier, statuses), "runs": runs}, indent=1)


def show(overview: Overview) -> None:
    """Print where the runs stand: a table on a terminal, plain lines elsewhere."""
    statuses = overview.statuses()
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(overview.tier.name, statuses))
    else:
        print(plain(overview.tier.name, statuses))


def watch(overview: Overview, seconds: float) -> None:
    """Show where the runs stand again and again, until all are done.

    On a terminal the table is renewed in place, what runs or went wrong on top; elsewhere summary lines are appended.
    """
    if not sys.stdout.isatty():
        while True:
            statuses = overview.statuses()
            print(f"{utc()} {summary(overview.tier.name, statuses)}", flush=True)
            if _all_done(statuses):
                return
            time.sleep(seconds)
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            statuses = sorted(overview.statuses(), key=lambda status: STATES.index(status.state))
            live.update(table(overview.tier.name, statuses), refresh=True)
            if _all_done(statuses):
                return
            time.sleep(seconds)


def _all_done(statuses: Sequence[RunStatus]) -> bool:
    return all(status.state in FINISHED for status in statuses)
