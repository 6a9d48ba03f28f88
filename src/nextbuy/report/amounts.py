"""What customers spend: how the expected worth of a next purchase came true."""

from collections.abc import Mapping
from typing import Any, Final

from nextbuy.models.blend import BLEND
from nextbuy.report import html
from nextbuy.report.html import Raw, number, percent

Facts = Mapping[str, Any]

_SIZES: Final = {"items": "items in it", "units": "units in it"}
"""Rows of a scored period that are no money."""


def amounts(facts: Facts) -> list[Raw]:
    """Words and tables; the reason where there are no amounts; nothing of a bundle from before they
    were measured."""
    amount = (facts.get("timing") or {}).get("amount")
    if not amount:
        return []
    if amount["reason"]:
        return [html.paragraph(f"Amounts are not weighed: {amount['reason']}.")]
    scored = amount["test"] or amount["validation"]
    blend = scored[BLEND]
    period = "the test" if amount["test"] else "the validation (there was no time for the test)"
    money = [name for name in scored if name not in {*_SIZES, BLEND}]
    money.sort(key=lambda name: scored[name]["deviance"])
    rows = [
        [name, _share(amount["weights"], name), *_money(scored[name])] for name in (BLEND, *money)
    ]
    return [
        html.paragraph(
            f"{blend['num_users']:,} customers who bought in {period} were said to spend "
            f"{_mean(blend, 'said')} each at their next purchase; they spent "
            f"{_mean(blend, 'came')}, {_gap(blend)}."
        ),
        html.table(
            ["model", "share", "said, mean", "came, mean", "mean error", "deviance"],
            rows,
            kinds=["best", *("" for _ in money)],
        ),
        html.paragraph(
            "mean error: of one purchase, in the currency of the log, above or below. deviance: "
            "errors by share of the amount (gamma); lower is better, and the shares are chosen by "
            "it on the validation.",
            "soft",
        ),
        html.table(
            ["size of the next purchase", "said, mean", "came, mean", "mean error"],
            [
                [words, _mean(scored[name], "said"), _mean(scored[name], "came"),
                 number(scored[name]["mae"], 2)]
                for name, words in _SIZES.items()
                if name in scored
            ],
        ),
    ]  # fmt: skip


def _share(weights: Mapping[str, float], name: str) -> str:
    return f"{100 * weights[name]:.0f} %" if name in weights else ""


def _money(found: Mapping[str, float]) -> list[str]:
    return [
        _mean(found, "said"),
        _mean(found, "came"),
        number(found["mae"], 2),
        number(found["deviance"], 3),
    ]


def _mean(found: Mapping[str, float], key: str) -> str:
    return number(found[key] / found["num_users"], 2)


def _gap(found: Mapping[str, float]) -> str:
    off = found["came"] / found["said"] - 1.0
    return f"{percent(abs(off))} {'more' if off >= 0 else 'less'} than said"
