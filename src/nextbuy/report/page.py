"""The page of a report: its parts in order."""

from pathlib import Path

from nextbuy.predictor import Predictor
from nextbuy.report import amounts, audiences, customers, data, html, scores, times
from nextbuy.report.html import Raw


def write_report(directory: Path, out: Path) -> Path:
    """Write the report of a bundle: one HTML file without scripts, for any browser, offline.

    Args:
        directory: A folder that `nextbuy train` wrote.
        out: The file; what was there is replaced as a whole.

    Raises:
        BundleError: If the bundle is damaged, or was written before bundles kept what a report
            shows.
        MissingExtraError: If the pictures' packages are not installed.
    """
    text = report(Predictor.load(directory))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(out)
    return out


def report(predictor: Predictor) -> str:
    """The report as HTML."""
    facts = scores.checked(predictor.facts)
    parts = [
        ("short", "In short", scores.in_short(predictor, facts)),
        ("data", "The data", data.health(facts)),
        ("protocol", "How it was measured", data.protocol(facts)),
        ("leaderboard", "Leaderboard", scores.leaderboard(facts)),
        ("blend", "What the blend leans on", scores.blend(facts)),
        ("calibration", "Do the probabilities hold?", scores.calibration(facts)),
        ("gains", "Gains and lift", scores.gains(facts)),
        ("slices", "For whom it works", scores.slices(facts)),
        ("times", "When they come back", times.times(facts)),
        ("amounts", "What they spend", amounts.amounts(facts)),
        ("audiences", "Who buys a thing next", audiences.audiences(facts)),
        ("customers", "Some customers", customers.examples(predictor)),
        ("caveats", "What to keep in mind", data.caveats(facts)),
    ]
    shown = [(anchor, title, body) for anchor, title, body in parts if body]
    links = "".join(f'<a href="#{a}">{html.escape(title)}</a>' for a, title, _ in shown)
    source = facts.get("source") or "a purchase log"
    head = Raw(
        f"<h1>Next purchases: {html.escape(Path(str(source)).name)}</h1>"
        f'<p class="soft">nextbuy {html.escape(facts["versions"]["nextbuy"])}, '
        f"made {html.escape(_moment(facts.get('created')))}</p><nav>{links}</nav>"
    )
    sections = [html.section(anchor, title, *body) for anchor, title, body in shown]
    return html.document(f"Next purchases: {source}", head, *sections)


def _moment(created: str | None) -> str:
    """`2026-11-24 13:23 UTC`."""
    return f"{created[:10]} {created[11:16]} UTC" if created else "at an unknown moment"
