"""Learn what a chance to buy is worth on validation, and see on the test what came of it.

Models are asked on validation before anything is fitted again, as a customer would ask them then.
Test purchases teach nothing: they are only held against what was said.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from nextbuy.audience.calibration import HALF_LIVES, Calibration
from nextbuy.audience.study import ExpectedDays, Study
from nextbuy.audience.target import KINDS, Kind, Target, most_bought
from nextbuy.data.catalog import Catalog, recount
from nextbuy.data.encoding import Encoded
from nextbuy.data.histories import DAY
from nextbuy.data.recoding import in_catalog
from nextbuy.metrics.calibration import reliability
from nextbuy.metrics.targeting import targeting
from nextbuy.models.protocol import FittedModel
from nextbuy.predictor.budget import TimeBudget
from nextbuy.splitting.cases import Split
from nextbuy.timing.events import Float64
from nextbuy.timing.forecaster import Forecaster
from nextbuy.timing.protocol import TimingModel

HORIZONS: Final = (7, 14, 30)
"""Days that chances are learnt and scored at, where the periods are as long."""

_TAUGHT_TARGETS, _SCORED_TARGETS = 15, 10
"""Of each kind, the most bought."""

_MOST_USERS, _LEAST_USERS, _MOST_CELLS = 3_000, 300, 3 * 10**8
"""Users of a period: a model of items is asked for a whole row of the catalog of each, so that a
large catalog has fewer."""

_MOST_USERS_IN_A_HURRY: Final = 500
_DIGITS: Final = 5


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Studies:
    """What is asked on the two periods.

    Attributes:
        taught: On validation; None where nothing can be learnt there.
        tested: On the test; None likewise.
        reason: Why nothing can be learnt, if so.
    """

    taught: Study | None = None
    tested: Study | None = None
    reason: str | None = None

    @classmethod
    def of(cls, encoded: Encoded, split: Split, budget: TimeBudget) -> Self:
        """Studies of the periods of a temporal split, of some thousand users each.

        Args:
            encoded: The whole log.
            split: Other kinds of split teach models what comes after the moment of asking.
            budget: Under a limit fewer users are asked.
        """
        if split.name != "temporal" or split.validation.as_of is None or split.test.as_of is None:
            return cls(reason=f"chances are learnt under a temporal split, not {split.name}")
        starts = int(split.validation.as_of[0]), int(split.test.as_of[0])
        end = int(encoded.histories.times.max()) + 1
        taught = _study(encoded, split, budget, start=starts[0], end=starts[1])
        tested = _study(encoded, split, budget, start=starts[1], end=end, is_test=True)
        if taught is None:
            return cls(reason=f"no {HORIZONS[0]} days of validation to learn from", tested=tested)
        return cls(taught=taught, tested=tested)

    def ask_timing(self, timing: TimingModel) -> ExpectedDays | None:
        """When the users buy, on validation."""
        return None if self.taught is None else self.taught.expected_days(timing)

    def ask_model(self, model: FittedModel) -> Float64 | None:
        """What they buy next, on validation."""
        return None if self.taught is None else self.taught.next_shares(model)

    def facts(
        self,
        shares: Float64 | None,
        days: ExpectedDays | None,
        *,
        model: FittedModel,
        forecaster: Forecaster | None,
        budget: TimeBudget,
    ) -> dict[str, Any]:
        """What was learnt, and how good it was on the test: JSON.

        Args:
            shares: What `ask_model` gave.
            days: What `ask_timing` gave.
            model: The one that was best on validation, fitted for the test.
            forecaster: Likewise; None if there is none.
            budget: Nothing is scored once its time is up.
        """
        learnt, reason = Calibration(), self.reason
        if self.taught is not None and shares is not None and days is not None:
            learnt = _learnt(self.taught, shares, days)
        scores = None
        if self.tested is not None and forecaster is not None and time.monotonic() < budget.scored:
            scores = _scores(self.tested, learnt, model, forecaster.blend)
        return {"reason": reason, "calibration": learnt.model_dump(mode="json"), "test": scores}


def _study(
    encoded: Encoded,
    split: Split,
    budget: TimeBudget,
    *,
    start: int,
    end: int,
    is_test: bool = False,
) -> Study | None:
    """Of users who bought before the start, evenly spread; None if the period is too short."""
    horizons = tuple(days for days in HORIZONS if start + days * DAY <= end)
    histories = encoded.histories
    bought = histories.lengths > 0
    bought[bought] = histories.times[histories.offsets[:-1][bought]] < start
    users = np.flatnonzero(bought)
    most = min(_MOST_USERS, max(_LEAST_USERS, _MOST_CELLS // len(split.catalog)))
    most = min(most, _MOST_USERS_IN_A_HURRY) if budget.is_limited else most
    if len(users) > most:
        users = users[np.linspace(0, len(users) - 1, most).astype(np.int64)]
    if not horizons or not len(users):
        return None
    whole = histories.take(users)
    known = in_catalog(whole, encoded.catalog, split.catalog)
    seen = known.keep(known.times < start).item_counts(len(split.catalog))
    before, _ = recount(split.catalog, seen)
    if is_test:
        targets = [t for kind in _kinds(before) for t in most_bought(before, kind, _SCORED_TARGETS)]
    else:
        targets = [t for kind in KINDS for t in most_bought(before, kind, _TAUGHT_TARGETS)]
    if not targets:
        return None
    return Study(
        whole=whole, known=known, catalog=split.catalog, targets=targets, start=start, end=end,
        horizons=horizons,
    )  # fmt: skip


def _kinds(catalog: Catalog) -> tuple[Kind, ...]:
    """Platforms and categories; items where the log has neither."""
    groups: tuple[Kind, ...] = ("platform", "category")
    found = tuple(kind for kind in groups if most_bought(catalog, kind, 1))
    return found or ("item",)


def _learnt(study: Study, shares: Float64, days: ExpectedDays) -> Calibration:
    views = {half_life: study.views(shares, days, half_life) for half_life in HALF_LIVES}
    return Calibration.learnt(views, study.bought(), study.horizons)


def _scores(
    study: Study, learnt: Calibration, model: FittedModel, timing: TimingModel
) -> dict[str, Any]:
    """Of each target and horizon, and the calibration error of all targets of a horizon."""
    shape = len(study.targets), len(study.horizons), len(study.known)
    views = study.views(study.next_shares(model), study.expected_days(timing), learnt.half_life)
    said, did = learnt.probabilities(views).reshape(shape), study.bought().reshape(shape)
    money = study.money()
    paid = None if money is None else money.reshape(shape)
    rows = []
    for place, (target, bought) in enumerate(zip(study.targets, study.purchases(), strict=True)):
        number = np.bincount(bought.users, minlength=shape[2]).astype(np.float64)
        age = np.full(shape[2], np.inf)
        np.minimum.at(age, bought.users, bought.ages)
        for column, days in enumerate(study.horizons):
            here = place, column
            values = None if paid is None else paid[here]
            rankings = {"audience": said[here], "frequency": number, "recency": -age}
            rows.append(
                _row(target, days, said[here], did[here])
                | {
                    name: _rounded(targeting(scores, did[here], values).as_dict())
                    for name, scores in rankings.items()
                }
            )
    errors = {
        str(days): reliability(said[:, column].ravel(), did[:, column].ravel()).ece
        for column, days in enumerate(study.horizons)
    }
    return {"num_users": shape[2], "horizons": list(study.horizons), "ece": errors, "targets": rows}


def _row(target: Target, days: int, said: Float64, did: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "kind": target.kind,
        "name": target.name,
        "days": days,
        "num_buyers": int(did.sum()),
        "bought": float(did.mean()),
        "probability": float(said.mean()),
        "ece": reliability(said, did).ece,
    }


def _rounded(lists: Mapping[str, list[float] | None]) -> dict[str, list[float | None] | None]:
    """Five digits; what is not a number becomes null, as JSON has it."""
    return {
        name: None if values is None else [_number(value) for value in values]
        for name, values in lists.items()
    }


def _number(value: float) -> float | None:
    return round(value, _DIGITS) if np.isfinite(value) else None
