"""A few customers of the log: what they bought, and what is predicted."""

from typing import Final

import numpy as np

from nextbuy.predictor import Predictor
from nextbuy.report import html
from nextbuy.report.html import Raw

_SHOWN: Final = 5
_NEWEST: Final = 5


def examples(predictor: Predictor) -> list[Raw]:
    """Users spread evenly over those with some history; none if there are none."""
    histories = predictor.histories
    able = np.flatnonzero(histories.lengths >= min(3, int(histories.lengths.max(initial=0)) or 1))
    if len(able) == 0:
        return []
    chosen = able[np.linspace(0, len(able) - 1, min(_SHOWN, len(able))).astype(np.int64)]
    who = histories.take(chosen)
    answers = predictor.predict(who, k=3).partition_by("user_id", as_dict=True)
    rows = []
    for place, user in enumerate(who.user_ids):
        items = who.items[who.offsets[place] : who.offsets[place + 1]][-_NEWEST:]
        bought = predictor.catalog.ids(items)["item_id"].to_list()
        more = "… " if who.lengths[place] > _NEWEST else ""
        offers = [
            Raw(
                f"<b>{html.escape(row['item_id'])}</b> {100 * row['probability']:.1f} % "
                f'<span class="soft">{html.escape(row["reason"])}</span>'
            )
            for row in answers[(user,)].to_dicts()
        ]
        rows.append([user, more + ", ".join(bought), Raw("<br>".join(offers))])
    return [
        html.paragraph(
            "Chosen evenly from the log, not for being right. Probabilities are those of the next "
            "purchase among everything that can be bought."
        ),
        html.table(
            ["customer", "bought (newest last)", "most probable next"], rows, text=(0, 1, 2)
        ),
    ]
