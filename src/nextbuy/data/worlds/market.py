"""`world:market`: habits, repeat buying, seasons and hidden segments, with the exact limit."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import polars as pl

from nextbuy import columns
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import UNKNOWN, Float32, Histories, Int32, Int64
from nextbuy.data.purchases import Purchases, RowCounts
from nextbuy.data.worlds.limits import Float64, expected_scores, probabilities_of
from nextbuy.data.worlds.market_parameters import (
    DAY_US,
    SPAN_DAYS,
    START_US,
    MarketConfig,
    draw_parameters,
)
from nextbuy.data.worlds.market_simulation import simulate
from nextbuy.data.worlds.market_truth import (
    NUM_NODES,
    NextTime,
    Window,
    gap_probability,
    item_probabilities,
    next_time,
)
from nextbuy.data.worlds.normal import NormalTail
from nextbuy.data.worlds.world import GapLaws, Questions, own_histories, own_items
from nextbuy.errors import ConfigError
from nextbuy.seeding import generator

_BLOCK = 8_192
_CHUNK = 512


class MarketWorld:
    """A market of 47 platforms and some thousands of items over two years.

    `market_parameters` has the formulas. Each purchase is a basket of its own.
    """

    name: ClassVar[str] = "world:market"

    def __init__(self, config: MarketConfig | None = None, *, seed: int = 0) -> None:
        self.config = config or MarketConfig()
        self.seed = seed
        self.parameters = draw_parameters(self.config, seed)
        self.platforms: tuple[str, ...] = tuple(
            self.parameters.items[columns.PLATFORM].unique(maintain_order=True)
        )
        self._item_ids = tuple(self.parameters.items[columns.ITEM])
        self._tail = NormalTail()

    @property
    def end(self) -> int:
        """End of the span, UTC microseconds: no purchase at or after it is seen."""
        return START_US + int(SPAN_DAYS * DAY_US)

    def purchases(self) -> Purchases:
        """One row a purchase, by user and time."""
        parts = []
        for block, start in enumerate(range(0, self.config.num_users, _BLOCK)):
            size = min(_BLOCK, self.config.num_users - start)
            rng = generator(self.seed, self.name, "users", block)
            owners, days, items, _ = simulate(self.parameters, size, rng)
            price = self.parameters.price[items] * np.exp(rng.normal(0.0, 0.05, len(items)))
            quantity = 1.0 + rng.poisson(0.2, len(items))
            parts.append((owners + start, days, items, price, quantity))
        owners, days, items, price, quantity = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        times = START_US + np.floor(days * DAY_US).astype(np.int64)
        users = pl.Series([f"user{number}" for number in range(1, self.config.num_users + 1)])
        sold = self.parameters.items[items]
        frame = pl.DataFrame(
            {
                columns.USER: users.gather(owners),
                columns.ITEM: sold[columns.ITEM],
                columns.TIME: pl.Series(times).cast(pl.Datetime("us", "UTC")),
                columns.PLATFORM: sold[columns.PLATFORM],
                columns.CATEGORY: sold[columns.CATEGORY],
                columns.PRICE: price.round(2),
                columns.QUANTITY: quantity,
            }
        )
        return Purchases(
            frame=frame,
            counts=RowCounts(rows_in=frame.height, kept=frame.height),
            time_kind="dates",
            basket_kind="none",
        )

    def true_log_probabilities(
        self,
        histories: Histories,
        catalog: Catalog,
        as_of: Int64 | None,
        until: int | None = None,
        *,
        is_at_as_of: bool = False,
    ) -> Float32:
        """The exact Bayes prediction; see `World.true_log_probabilities`.

        Exact but for the quadrature over the time of the next purchase.
        """
        own = own_items(catalog, self._item_ids, self.name)
        window = Window(as_of=as_of, until=until, is_at_as_of=is_at_as_of)
        log_p = np.full((len(histories), len(catalog) + 1), -np.inf, dtype=np.float32)
        for rows, p, _ in self._chunks(histories, own, window):
            known = p.sum(axis=1, keepdims=True)
            with np.errstate(divide="ignore"):
                log_p[rows] = np.log(p) - np.log(known)
        return log_p

    def limit(self, cases: Questions, catalog: Catalog) -> dict[str, float]:
        """Expected scores of the truth, as `expected_scores` defines them, and one for time.

        Known are the history, that nothing was bought between it and `as_of`, and that the next
        purchase comes before `until`, or before the end of the world's span, because an answer that
        was seen lies inside it. Where `target_times` equals `as_of` in every case, the question
        gives the time away (leave-last-out does), and the truth uses it. It does not use that such
        an answer is the user's last: the truth is then the best for any purchase, and next to it
        for these.

        `gap_log_likelihood` is the expected log density of ln(days from the last visible purchase
        to the next) under the same knowledge; of a time that is given away, under the history
        alone. Users who have not bought are left out.
        """
        own = own_items(catalog, self._item_ids, self.name)
        window = self._window(cases)
        gaps: list[Float64] = []

        def probabilities() -> Iterator[Float64]:
            for _, p, time in self._chunks(cases.histories, own, window):
                gaps.append(_expected_log_density(time))
                yield p

        scores = expected_scores(probabilities())
        if window.is_at_as_of:
            alone = Window(until=window.until)
            gaps = [
                _expected_log_density(next_time(self.parameters, mine, alone, self._tail))
                for _, mine in self._own_chunks(cases.histories, own)
            ]
        expected = np.concatenate(gaps) if gaps else np.array([])
        expected = expected[~np.isnan(expected)]
        scores["gap_log_likelihood"] = float(expected.mean()) if len(expected) else float("nan")
        return scores

    def probabilities_of(self, told: Int32, cases: Questions, catalog: Catalog) -> Float64:
        """See `World.probabilities_of` and `limit`."""
        own = own_items(catalog, self._item_ids, self.name)
        chunks = self._chunks(cases.histories, own, self._window(cases))
        return probabilities_of((p for _, p, _ in chunks), told)

    def _window(self, cases: Questions) -> Window:
        """What is known of the time of the answers."""
        until = self.end if cases.until is None else min(cases.until, self.end)
        return Window(as_of=cases.as_of, until=until, is_at_as_of=_tells_the_time(cases))

    def gap_laws(self, histories: Histories, catalog: Catalog, as_of: int | Int64) -> GapLaws:
        """See `World.gap_laws`."""
        own = own_items(catalog, self._item_ids, self.name)
        as_of_U = np.array(np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(histories)))
        seen = histories.before(as_of_U)
        window, bought_U = Window(as_of=as_of_U), seen.lengths > 0
        _check_window(seen, window)
        weights = [
            next_time(self.parameters, mine, window.part(rows), self._tail, num_nodes=1).posterior
            for rows, mine in self._own_chunks(seen, own)
        ]
        last_U = as_of_U.copy()
        last_U[bought_U] = seen.times[seen.offsets[1:][bought_U] - 1]
        return GapLaws(
            weights=np.concatenate([np.empty((0, self.config.num_segments)), *weights]),
            median_days=np.exp(self.parameters.gap_mean),
            spread=self.parameters.gap_spread,
            elapsed_days=np.where(bought_U, (as_of_U - last_U) / DAY_US, np.nan),
        )

    def gap_probabilities(
        self, histories: Histories, catalog: Catalog, gap_days: Float64
    ) -> Float64:
        """P(next gap <= gap_days | history), length U; every user must have bought."""
        own = own_items(catalog, self._item_ids, self.name)
        mine = own_histories(histories, own, self.name)
        return gap_probability(self.parameters, mine, gap_days, self._tail)

    def _chunks(
        self, histories: Histories, own: Int32, window: Window, num_nodes: int = NUM_NODES
    ) -> Iterator[tuple[slice, Float64, NextTime]]:
        """Rows, P(next item) of shape [n, V + 1] and the next time of some users at once."""
        _check_window(histories, window)
        column = np.maximum(own, 0)
        for rows, mine in self._own_chunks(histories, own):
            time = next_time(self.parameters, mine, window.part(rows), self._tail, num_nodes)
            p = item_probabilities(self.parameters, mine, time)
            yield rows, np.where(own == UNKNOWN, 0.0, p[:, column]), time

    def _own_chunks(self, histories: Histories, own: Int32) -> Iterator[tuple[slice, Histories]]:
        for start in range(0, len(histories), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(histories)))
            some = histories.take(np.arange(rows.start, rows.stop))
            yield rows, own_histories(some, own, self.name)


def _expected_log_density(time: NextTime) -> Float64:
    """Of ln(gap), over segments and times, length C; `nan` for users who have not bought."""
    by_segment = np.einsum("ckj,j->ck", time.log_gap_density, time.weights)
    return np.asarray((by_segment * time.posterior).sum(axis=1))


def _tells_the_time(cases: Questions) -> bool:
    return (
        cases.as_of is not None
        and cases.target_times is not None
        and len(cases) > 0
        and bool((cases.as_of == cases.target_times).all())
    )


def _check_window(histories: Histories, window: Window) -> None:
    if histories.time_kind != "dates":
        raise ConfigError(
            "The limit of world:market needs dates, these histories hold only an order. "
            "Encode the purchases with their timestamps."
        )
    if window.as_of is None or window.until is None or not len(window.as_of):
        return
    latest = int(window.as_of.max())
    if latest >= window.until:
        raise ConfigError(
            f"The next purchase was asked at {latest} and said to be before {window.until} "
            "(UTC microseconds). Ask before the end."
        )
