"""The doctor: what a log holds, what looks wrong with it, and what to do before training."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.encoding import Encoded, encode
from nextbuy.data.fingerprint import fingerprint
from nextbuy.data.histories import Histories
from nextbuy.data.purchases import Purchases

Severity = Literal["info", "warning", "error"]

FEW_LEARNABLE_USERS: Final = 100
"""With fewer users that came back, nothing beyond popularity can be told from luck."""

_ORDER_ID_SHARE: Final = 0.9
_HEAVY_FACTOR: Final = 30
_HEAVY_LEAST: Final = 200

_REJECT_FINDINGS: Final = (
    ("lies in the future", "future-dates", "Check the clock or the date format of the source."),
    ("lies before", "impossible-dates", "Placeholders such as 0 or 1970 are no purchases."),
    ("zero or negative", "returns", "Say --returns keep if these rows are purchases."),
    ("is no finite number", "bad-numbers", "Say --decimal ',' or drop the column if it is noise."),
    ("fields instead of", "ragged-rows", "Quote fields that hold the delimiter."),
    ("not UTF-8", "encoding", "Bring the file to one encoding."),
    ("empty", "missing-values", "Rows without user, item or time cannot be used."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to know before training.

    Attributes:
        code: What kind of thing it is, stable over versions.
        severity: `info` to know, `warning` to look at, `error` to mend first.
        found: What was found, with numbers.
        advice: What to do.
    """

    code: str
    severity: Severity
    found: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Facts and findings about one log.

    Attributes:
        rows: In, kept, rejected, duplicates.
        facts: Numbers and texts under stable names, ready for JSON.
        findings: Worst first.
    """

    rows: dict[str, int]
    facts: dict[str, str | int | float | None]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, object]:
        """One JSON-ready object: `rows`, `findings` and the facts beside them."""
        return {
            "rows": self.rows,
            "findings": [asdict(finding) for finding in self.findings],
            **self.facts,
        }


def examine(purchases: Purchases) -> Examination:
    """Look at a log from all sides.

    Raises:
        EmptyDataError: If the log has no rows.
    """
    encoded = encode(purchases)
    histories = encoded.histories
    counts = purchases.counts
    findings = [
        *_reject_findings(purchases),
        *_copies(purchases),
        *_size_findings(purchases, encoded),
        *_id_findings(purchases),
        *_user_findings(encoded),
    ]
    order: dict[str, int] = {"error": 0, "warning": 1, "info": 2}
    return Examination(
        rows={
            "in": counts.rows_in,
            "kept": counts.kept,
            "rejected": counts.rejected,
            "duplicates": counts.duplicates,
        },
        facts={
            "users": len(histories),
            "items": purchases.frame[columns.ITEM].n_unique(),
            "catalog_rows": len(encoded.catalog),
            "baskets": _num_baskets(histories),
            "users_with_two_baskets": int((_baskets_per_user(histories) > 1).sum()),
            "repeat_share": _repeat_share(histories),
            "time": purchases.time_kind,
            "basket_kind": purchases.basket_kind,
            **_span(purchases),
            "columns": ", ".join(purchases.frame.columns),
            "guesses": "; ".join(purchases.guesses),
            "fingerprint": fingerprint(purchases),
        },
        findings=tuple(sorted(findings, key=lambda finding: order[finding.severity])),
    )


def _span(purchases: Purchases) -> dict[str, str | int | float | None]:
    times = purchases.frame[columns.TIME].cast(pl.Int64)
    low, high = int(times.to_numpy().min()), int(times.to_numpy().max())
    if purchases.time_kind == "order":
        return {"first": None, "last": None, "days": None}
    epoch = datetime.fromtimestamp(0, UTC)
    first, last = (epoch + timedelta(microseconds=moment) for moment in (low, high))
    days = round((last - first).total_seconds() / 86_400, 3)
    return {"first": first.isoformat(), "last": last.isoformat(), "days": days}


def _baskets_per_user(histories: Histories) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Number of baskets of each user; every user has at least one purchase here."""
    return histories.baskets[histories.offsets[1:] - 1].astype(np.int64) + 1


def _num_baskets(histories: Histories) -> int:
    return int(_baskets_per_user(histories).sum())


def _repeat_share(histories: Histories) -> float:
    """Share of purchases of a thing that the user had bought before."""
    keys = histories.owners * (int(histories.items.max()) + 1) + histories.items
    return 1 - len(np.unique(keys)) / len(keys)


def _reject_findings(purchases: Purchases) -> list[Finding]:
    reasons = (
        purchases.rejects.group_by("column", "reason")
        .agg(pl.len(), pl.col("line").first(), pl.col("file").first(), pl.col("raw").first())
        .sort("len", "column", "reason", descending=[True, False, False])
    )
    findings = []
    for column, reason, count, line, file, raw in reasons.iter_rows():
        known = [(name, advice) for part, name, advice in _REJECT_FINDINGS if part in reason]
        name, advice = known[0] if known else ("rejected-rows", "See the reject file.")
        subject = f"{column} {reason}" if column else reason
        found = f"{count} rows rejected: {subject}. First: {file}, line {line}: {raw[:120]!r}."
        share = count / purchases.counts.rows_in
        findings.append(
            Finding(
                code=name,
                severity="error" if share > 0.5 else "warning",
                found=found,
                advice=advice,
            )
        )
    return findings


def _copies(purchases: Purchases) -> list[Finding]:
    """Rows that occur more than once, and orders that were imported more than once."""
    frame = purchases.frame
    occurrences = frame.group_by(frame.columns).len("_copies")
    num_copies = frame.height - occurrences.height
    if not num_copies or purchases.time_kind == "order":
        return []
    findings = [
        Finding(
            code="duplicate-rows",
            severity="warning" if num_copies > frame.height / 100 else "info",
            found=f"{num_copies} of {frame.height} rows are exact copies of others.",
            advice="People do buy a thing twice; if these are copies, say --duplicates drop.",
        )
    ]
    if purchases.basket_kind == "column":
        orders = occurrences.drop_nulls(columns.BASKET).group_by(columns.USER, columns.BASKET)
        copied = orders.agg(
            low=pl.col("_copies").min(), high=pl.col("_copies").max(), lines=pl.len()
        ).filter((pl.col("low") > 1) & (pl.col("low") == pl.col("high")) & (pl.col("lines") > 1))
        if not copied.is_empty():
            findings.append(
                Finding(
                    code="reimported-orders",
                    severity="warning",
                    found=f"{copied.height} orders are there several times with all their lines, "
                    f"such as {copied.sort(columns.BASKET)[columns.BASKET][0]!r}.",
                    advice="They look imported twice: say --duplicates drop.",
                )
            )
    return findings


def _size_findings(purchases: Purchases, encoded: Encoded) -> list[Finding]:
    histories, findings = encoded.histories, []
    num_items = purchases.frame[columns.ITEM].n_unique()
    learnable = int((_baskets_per_user(histories) > 1).sum())
    if num_items == 1:
        findings.append(
            Finding(
                code="one-item",
                severity="error",
                found=f"All {purchases.counts.kept} purchases are of one item, "
                f"{purchases.frame[columns.ITEM][0]!r}.",
                advice="There is nothing to choose from; check the item column.",
            )
        )
    if len(histories) == 1:
        findings.append(
            Finding(
                code="one-user",
                severity="error",
                found=f"All {purchases.counts.kept} purchases are of one user, "
                f"{histories.user_ids[0]!r}.",
                advice="Nothing can be learned from others; check the user column.",
            )
        )
    if learnable < FEW_LEARNABLE_USERS:
        findings.append(
            Finding(
                code="too-little-data",
                severity="error" if learnable == 0 else "warning",
                found=f"{learnable} of {len(histories)} users have two baskets or more.",
                advice=f"With fewer than {FEW_LEARNABLE_USERS} expect popularity to be as good as "
                "anything; bring a longer period.",
            )
        )
    single = len(histories) - learnable
    if single:
        findings.append(
            Finding(
                code="one-basket-users",
                severity="info",
                found=f"{single} of {len(histories)} users have one basket only.",
                advice="They get predictions, but cannot be used to measure them.",
            )
        )
    if purchases.time_kind == "order":
        findings.append(
            Finding(
                code="order-only-time",
                severity="info",
                found="Time is only an order, without dates.",
                advice="What needs days (forecast, audience, a temporal split) is not available.",
            )
        )
    return findings


def _id_findings(purchases: Purchases) -> list[Finding]:
    findings = []
    frame = purchases.frame
    num_items, num_rows = frame[columns.ITEM].n_unique(), frame.height
    if num_rows >= 100 and num_items > _ORDER_ID_SHARE * num_rows:
        findings.append(
            Finding(
                code="items-look-like-order-ids",
                severity="error",
                found=f"{num_items} different items in {num_rows} rows "
                f"({100 * num_items / num_rows:.1f} %): nearly every row has an item of its own, "
                f"such as {frame[columns.ITEM][0]!r}.",
                advice="Name the column of what was bought, with --item-column.",
            )
        )
    for column in (columns.USER, columns.ITEM, columns.PLATFORM):
        if column in frame.columns:
            findings += _confusable(frame[column], column)
    return findings


def _confusable(series: pl.Series, column: str) -> list[Finding]:
    """Ids that differ only in case, composition, invisible characters or spaces."""
    ids = series.drop_nulls().unique().sort().alias("id").to_frame()
    skeleton = (
        pl.col("id").str.normalize("NFKC").str.replace_all(r"[\p{Cf}\s]", "").str.to_lowercase()
    )
    twins = (
        ids.group_by(skeleton.alias("skeleton"), maintain_order=True)
        .agg(pl.col("id"))
        .filter(pl.col("id").list.len() > 1)
    )
    if twins.is_empty():
        return []
    example = " and ".join(ascii(each) for each in twins["id"][0].to_list()[:3])
    return [
        Finding(
            code="confusable-ids",
            severity="warning",
            found=f"{int(twins['id'].list.len().sum())} values of {column} look like another one, "
            f"such as {example}.",
            advice="They count as different. If they are not, mend the source; --normalize-ids nfc "
            "joins those that differ in Unicode composition.",
        )
    ]


def _user_findings(encoded: Encoded) -> list[Finding]:
    """Users far beyond the rest: bots, wholesalers, the account of the till."""
    histories, findings = encoded.histories, []
    lengths = histories.lengths
    limit = max(_HEAVY_LEAST, _HEAVY_FACTOR * float(np.quantile(lengths, 0.75)))
    heavy = np.flatnonzero(lengths > limit)
    if len(heavy) and len(lengths) > 1:
        worst = heavy[np.argsort(-lengths[heavy], kind="stable")]
        shown = ", ".join(f"{histories.user_ids[int(u)]!r} ({lengths[u]})" for u in worst[:3])
        share = 100 * lengths[heavy].sum() / histories.num_purchases
        findings.append(
            Finding(
                code="heavy-users",
                severity="warning",
                found=f"{len(heavy)} users have more than {limit:.0f} purchases, three quarters "
                f"have at most {np.quantile(lengths, 0.75):.0f}: {shown}; together {share:.1f} % "
                "of all.",
                advice="Leave out bots, tills and wholesalers: they teach what nobody does.",
            )
        )
    if encoded.num_capped:
        findings.append(
            Finding(
                code="capped-histories",
                severity="warning",
                found=f"{encoded.num_capped} purchases of {encoded.num_capped_users} users are "
                "older than the latest that are kept.",
                advice="Raise the cap if these are people.",
            )
        )
    return findings
