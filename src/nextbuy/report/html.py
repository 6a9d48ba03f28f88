"""HTML from plain values. Every text is escaped here and nowhere else."""

import html
import math
from collections.abc import Sequence
from typing import Final

_STYLE: Final = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5b6570; --line: #dfe3e8; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 0 0 12px; }
h3 { font-size: 16px; margin: 20px 0 6px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px;
  margin: 18px 0; overflow-x: auto; }
p { margin: 8px 0; max-width: 75ch; }
.span { color: var(--soft); font-size: 12px; font-weight: 400; white-space: nowrap; }
.soft { color: var(--soft); font-size: 14px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 14px;
  margin: 14px 0 4px; }
.figure { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.figure b { display: block; font-size: 24px; line-height: 1.2; }
.figure span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 10px 0; }
th { text-align: right; font-weight: 600; border-bottom: 2px solid var(--line); padding: 6px 8px;
  white-space: nowrap; }
td { text-align: right; border-bottom: 1px solid var(--line); padding: 6px 8px;
  font-variant-numeric: tabular-nums; }
th.text, td.text { text-align: left; }
tr.best td { font-weight: 600; background: #eef6fb; }
tr.limit td { color: var(--soft); font-style: italic; }
svg { max-width: 100%; height: auto; display: block; margin: 8px 0; }
.bar { display: inline-block; height: 9px; background: var(--blue); border-radius: 2px; }
.tag { display: inline-block; font-size: 12px; border-radius: 4px; padding: 1px 7px;
  margin-right: 8px; color: #fff; background: var(--soft); }
.tag.error { background: #a32a1c; } .tag.warning { background: #b35900; }
ul { padding-left: 20px; } li { margin: 6px 0; max-width: 75ch; }
nav { font-size: 14px; margin: 14px 0 0; } nav a { color: var(--blue); margin-right: 14px; }
@media print { body { background: #fff; } section { break-inside: avoid; border: 0; padding: 0; } }
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Neither scripts nor anything from elsewhere: the browser itself sees to it."""


class Raw(str):
    """Text that is HTML already."""


def escape(value: object) -> Raw:
    """Any value as text; what is HTML stays."""
    return value if isinstance(value, Raw) else Raw(html.escape(str(value)))


def paragraph(text: object, kind: str = "") -> Raw:
    """A paragraph, of a class if told."""
    return Raw(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")


def section(anchor: str, title: str, *parts: Raw) -> Raw:
    """A card with a heading."""
    body = "\n".join(parts)
    return Raw(f'<section id="{anchor}"><h2>{escape(title)}</h2>\n{body}\n</section>')


def bullets(lines: Sequence[object]) -> Raw:
    """A list."""
    return Raw("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")


def figures(pairs: Sequence[tuple[str, str]]) -> Raw:
    """Large numbers, each with what it says."""
    shown = "".join(
        f'<div class="figure"><b>{escape(number)}</b><span>{escape(words)}</span></div>'
        for number, words in pairs
    )
    return Raw(f'<div class="figures">{shown}</div>')


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    text: Sequence[int] = (0,),
    kinds: Sequence[str] = (),
) -> Raw:
    """A table; columns of numbers to the right.

    Args:
        columns: Headings.
        rows: Cells.
        text: Columns to align to the left.
        kinds: Class of each row: `best`, `limit` or nothing.
    """

    def cells(tag: str, row: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{' class=text' if place in text else ''}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(row)
        )

    body = ""
    for place, row in enumerate(rows):
        kind = kinds[place] if place < len(kinds) else ""
        body += f"<tr{f' class={kind}' if kind else ''}>{cells('td', row)}</tr>\n"
    head = f"<thead><tr>{cells('th', columns)}</tr></thead>" if any(columns) else ""
    return Raw(f"<table>{head}<tbody>{body}</tbody></table>")


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def number(value: float | None, digits: int) -> str:
    """A number; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def bar(share: float | None, width: int = 140) -> Raw:
    """A share as a bar."""
    pixels = 0 if share is None or not math.isfinite(share) else round(width * min(share, 1.0))
    return Raw(f'<span class="bar" style="width:{pixels}px"></span>')


def tag(words: str) -> Raw:
    """A small label."""
    return Raw(f'<span class="tag {escape(words)}">{escape(words)}</span>')


def document(title: str, *parts: Raw) -> str:
    """A whole file."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body><main>\n{body}\n</main></body>\n</html>\n"
    )
