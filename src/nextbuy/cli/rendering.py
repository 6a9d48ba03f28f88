"""The only place that prints: JSON, tables, progress bars, notes and errors.

Results go to standard output; progress, notes and errors go to standard error, so that `--json`
leaves one object on standard output and nothing else.
"""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_WIDTH_OF_A_PIPE: Final = 120
_SECONDS_BETWEEN_LINES: Final = 30.0


def _console(*, stderr: bool) -> Console:
    """A console that prints ids as they are: `[red]` and `:cat:` mean nothing in a purchase log."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal else _WIDTH_OF_A_PIPE
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


_out = _console(stderr=False)
_err = _console(stderr=True)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output; numbers that are not finite become null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_line(text: str = "") -> None:
    """One line of a result."""
    _out.print(text, soft_wrap=True)


def print_title(text: str) -> None:
    """A heading above a table."""
    _out.print(f"\n{text}", style="bold")


def print_note(text: str) -> None:
    """Something to know that is not the result: a guess, a count, a warning."""
    _err.print(text, soft_wrap=True)


def print_error(text: str) -> None:
    """The reason of a failure, in one line."""
    _err.print("error: " + " ".join(text.split()), soft_wrap=True, style="red")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    bold: Sequence[int] = (),
    dim: Sequence[int] = (),
    text_columns: Sequence[int] = (0,),
) -> None:
    """A table; columns are numbers, aligned to the right, unless they are said to be text.

    Args:
        columns: Headings.
        rows: Cells as text.
        title: Heading of the table.
        text_columns: Columns to align to the left and to break into lines when they are long.
        bold: Rows to make bold.
        dim: Rows to grey out.
    """
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for place, column in enumerate(columns):
        is_text = place in text_columns
        table.add_column(
            column, justify="left" if is_text else "right", no_wrap=place == 0 or not is_text
        )
    for number, row in enumerate(rows):
        style = "bold" if number in bold else "dim" if number in dim else None
        table.add_row(*row, style=style)
    _out.print(table)


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f} %"


class ProgressBar:
    """Draws the progress of long work on standard error.

    It shows share, the newest facts (loss, targets a second), elapsed and remaining time. On a
    terminal it is a bar that moves; in a file or pipe it is a line every half minute and one at the
    end of each piece of work.
    """

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=_err,
        )
        self._moves = _err.is_terminal
        self._prefix = ""
        self._is_shown = False
        self._task: TaskID | None = None
        self._said = 0.0
        self._targets = 0.0
        self._facts: dict[str, float] = {}

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        if self._is_shown:
            self._bar.stop()

    def about(self, subject: str) -> None:
        """Name what the next pieces of work belong to, for example a model."""
        self._prefix = subject

    def start(self, name: str, total: int, done: int = 0) -> None:
        """A piece of work begins."""
        self.finish()
        if self._moves and not self._is_shown:  # nothing to show yet would still be an empty line
            self._bar.start()
            self._is_shown = True
        self._targets, self._facts, self._said = 0.0, {}, time.monotonic()
        words = f"{self._prefix}: {name}" if self._prefix else name
        self._task = self._bar.add_task(words, total=total, completed=done, facts="")

    def advance(self, units: int, facts: dict[str, float]) -> None:
        """`units` more are done; `facts` are shown beside the bar."""
        if self._task is None:
            return
        self._targets += facts.pop("targets", 0.0)
        for name, value in facts.items():
            smooth = name == "loss" and name in self._facts
            self._facts[name] = 0.95 * self._facts[name] + 0.05 * value if smooth else value
        shown = [
            f"{words} {self._facts[name]:.3f}"
            for name, words in (("loss", "loss"), ("validation_loss", "validation"))
            if name in self._facts
        ]
        elapsed = self._now().elapsed
        if self._targets and elapsed:
            shown.append(f"{self._targets / elapsed:,.0f} targets/s")
        self._bar.update(self._task, advance=units, facts="  ".join(shown))
        if not self._moves and time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._say("")

    def finish(self) -> None:
        """The piece of work is over."""
        if self._task is None:
            return
        self._bar.stop_task(self._task)
        if not self._moves:
            self._say("ended")
        self._task = None

    def _now(self) -> Task:
        return next(task for task in self._bar.tasks if task.id == self._task)

    def _say(self, words: str) -> None:
        """One line on where the work stands, for a file or pipe."""
        task = self._now()
        said = f"{task.description}: {task.percentage:.0f} % after {task.elapsed or 0:.1f} s"
        self._said = time.monotonic()
        print_note("  ".join(part for part in (said, str(task.fields["facts"]), words) if part))
