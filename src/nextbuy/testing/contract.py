"""The contract that every model keeps, as tests to inherit.

    class TestMine(ModelContract):
        @classmethod
        def create(cls) -> Model:
            return Mine()

Everything below then runs against it with pytest. Nothing here depends on the accuracy of a model.
What is promised is said in `nextbuy.models.protocol.Model`; models with a random start must draw
all of it from `FitOptions.seed`.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nextbuy import storage
from nextbuy.data.catalog import COLUMNS, Catalog
from nextbuy.data.histories import DAY, UNKNOWN, Histories, Int64
from nextbuy.errors import BundleError, NextbuyError, NotFittedError, TimeIsUpError
from nextbuy.models.protocol import FindsTopK, FitOptions, Model, top_k
from nextbuy.splitting.cases import Cases
from nextbuy.splitting.repeat import RepeatPolicy, apply_repeat_policy

V = 9
"""Items of the small catalog; item 9 is in the catalog and never bought."""


class ModelContract:
    """Inherit, and give `create`; a model that needs few epochs says so in `epochs`."""

    epochs: int | None = 2

    @classmethod
    def create(cls) -> Model:
        """A model that is not fitted."""
        raise NotImplementedError

    @classmethod
    def fitted(cls) -> Model:
        """The model, fitted on the small log."""
        options = FitOptions(seed=0, epochs=cls.epochs)
        return cls.create().fit(small_train(), small_validation(), small_catalog(V), options)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Model:
        """One fitted model for all tests that do not change it."""
        return cls.fitted()

    def test_rows_are_distributions_over_the_catalog(self, model: Model) -> None:
        """Shape, type, sum, and -inf for padding."""
        log_p = model.log_probabilities(asked(), _now(asked()))
        assert log_p.shape == (len(asked()), V + 1)
        assert log_p.dtype == np.float32
        assert np.isneginf(log_p[:, 0]).all()
        assert np.isfinite(log_p[:, 1:]).all()
        np.testing.assert_allclose(np.exp(log_p.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)

    def test_an_empty_history_of_a_stranger_is_answered(self, model: Model) -> None:
        """Nobody is refused."""
        stranger = Histories.from_lists([[]], times=[[]], user_ids=["never seen"])
        log_p = model.log_probabilities(stranger, np.array([DAY * 100]))
        assert np.isfinite(log_p[0, 1:]).all()

    def test_no_histories_give_no_rows(self, model: Model) -> None:
        """Shape [0, V + 1]."""
        nobody = Histories.from_lists([], times=[])
        assert model.log_probabilities(nobody, np.array([], np.int64)).shape == (0, V + 1)

    def test_a_row_depends_on_its_own_history_alone(self, model: Model) -> None:
        """Neither on who else is asked about, nor on their order, nor on the user's name."""
        histories = asked()
        together = model.log_probabilities(histories, _now(histories))
        for place in reversed(range(len(histories))):
            alone = histories.take(np.array([place]))
            renamed = Histories.from_lists(
                [alone.items.tolist()], times=[alone.times.tolist()],
                baskets=[alone.baskets.tolist()], user_ids=["other name"],
            )  # fmt: skip
            found = model.log_probabilities(renamed, _now(renamed))
            np.testing.assert_allclose(found[0, 1:], together[place, 1:], rtol=0, atol=1e-5)

    def test_a_very_long_history_still_gives_a_distribution(self, model: Model) -> None:
        """Sums over many purchases must not drift, and must not take for ever."""
        items = [[5] * 100_000, [1 + i % V for i in range(100_000)]]
        histories = Histories.from_lists(items, times=[range(100_000)] * 2)
        log_p = model.log_probabilities(histories, _now(histories))
        np.testing.assert_allclose(np.exp(log_p.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)

    @pytest.mark.parametrize(
        "other",
        [[3, 1, 2, 4, 5, 6], [1, 2, 3, 4, 6, 5], [2, 3, 1, 4, 6, 5]],
        ids=["first basket", "last basket", "both"],
    )
    def test_the_order_inside_a_basket_means_nothing(self, model: Model, other: list[int]) -> None:
        """Two ways to write down the same baskets."""
        days, baskets = [[0, 0, 0, DAY, 2 * DAY, 2 * DAY]], [[0, 0, 0, 1, 2, 2]]
        one = Histories.from_lists([[1, 2, 3, 4, 5, 6]], times=days, baskets=baskets)
        two = Histories.from_lists([other], times=days, baskets=baskets)
        first, second = (model.log_probabilities(h, _now(h)) for h in (one, two))
        np.testing.assert_allclose(first[:, 1:], second[:, 1:], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("policy", ["allow", "exclude", "cooldown:200"])
    def test_a_search_finds_what_whole_rows_have(self, model: Model, policy: str) -> None:
        """For models that have `top_k` beside `log_probabilities`."""
        if not isinstance(model, FindsTopK):
            return
        histories, allowed = asked(), RepeatPolicy.parse(policy)
        now = _now(histories)
        blocked = allowed.blocks(histories, now)
        items, found = model.top_k(histories, now, V, blocked=blocked)
        rows = apply_repeat_policy(model.log_probabilities(histories, now), histories, now, allowed)
        of_items = np.take_along_axis(rows, items.astype(np.int64), axis=1)
        for expected in (top_k(rows, V)[1], of_items):
            np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-5)

    def test_the_order_of_time_alone_is_enough(self) -> None:
        """Histories without dates are fitted and answered, with `as_of` None."""
        train = Histories.from_lists([[1, 2, 3], [2, 3, 4, 5]])
        validation = cases_of(Histories.from_lists([[1, 2]]), [[3]], as_of=None)
        options = FitOptions(epochs=self.epochs)
        model = self.create().fit(train, validation, small_catalog(V), options)
        log_p = model.log_probabilities(Histories.from_lists([[1, 2], []]), None)
        assert np.isfinite(log_p[:, 1:]).all()

    def test_nothing_that_is_handed_in_is_changed(self) -> None:
        """The same data, perhaps mapped into memory, serve the next model."""
        train, validation, histories = small_train(), small_validation(), asked()
        now = _now(histories)
        for part in (train, validation.histories, histories):
            for array in (part.items, part.times, part.baskets, part.offsets):
                array.flags.writeable = False
        for array in (validation.target_items, validation.target_offsets, now):
            array.flags.writeable = False
        options = FitOptions(epochs=self.epochs)
        model = self.create().fit(train, validation, small_catalog(V), options)
        model.log_probabilities(histories, now)

    def test_fitting_again_forgets_what_was_fitted_before(self, tmp_path: Path) -> None:
        """The same files as those of a model that was fitted once."""
        options = FitOptions(seed=0, epochs=self.epochs)
        loyal = Histories.from_lists([[i, i, i] for i in range(1, V)] * 3)
        targets = [[i] for i in range(1, V)] * 3
        model = self.create()
        model.fit(loyal, cases_of(loyal, targets, as_of=None), small_catalog(V), options)
        model.fit(small_train(), small_validation(), small_catalog(V), options)
        assert files_of(model, tmp_path / "twice") == files_of(self.fitted(), tmp_path / "once")

    @pytest.mark.parametrize("targets", [[], [UNKNOWN]], ids=["no target", "unknown"])
    def test_a_validation_that_says_nothing_is_no_error(self, targets: list[int]) -> None:
        """A small log may hold out only purchases of items that nobody else bought."""
        validation = cases_of(
            Histories.from_lists([[1, 2]] * 3, times=[[0, DAY]] * 3),
            [targets] * 3,
            as_of=np.full(3, 2 * DAY),
        )
        options = FitOptions(epochs=self.epochs)
        model = self.create().fit(small_train(), validation, small_catalog(V), options)
        assert np.isfinite(model.log_probabilities(asked(), _now(asked()))[:, 1:]).all()

    def test_when_the_time_is_up_it_has_something_or_says_so(self) -> None:
        """Fitting that began too late ends at once, with a model or a reason."""
        late = FitOptions(epochs=100_000, deadline=time.monotonic())
        model = self.create()
        started = time.monotonic()
        try:
            model.fit(small_train(), small_validation(), small_catalog(V), late)
        except TimeIsUpError as error:
            assert str(error)
        else:
            assert np.isfinite(model.log_probabilities(asked(), _now(asked()))[:, 1:]).all()
        assert time.monotonic() - started < 20, "far less than 100,000 epochs take"

    def test_the_same_seed_gives_the_same_bytes(self, model: Model, tmp_path: Path) -> None:
        """On the same machine."""
        assert files_of(self.fitted(), tmp_path / "again") == files_of(model, tmp_path / "first")

    def test_a_loaded_model_answers_with_the_same_bytes(self, model: Model, tmp_path: Path) -> None:
        """Save, load, ask; and saving the loaded one gives the same files."""
        stored = files_of(model, tmp_path / "one")
        loaded = type(model).load(tmp_path / "one", small_catalog(V))
        before = model.log_probabilities(asked(), _now(asked()))
        after = loaded.log_probabilities(asked(), _now(asked()))
        assert before.tobytes() == after.tobytes()
        assert files_of(loaded, tmp_path / "two") == stored

    def test_files_of_another_catalog_are_refused(self, model: Model, tmp_path: Path) -> None:
        """M09: a catalog with one item more or less does not fit."""
        files_of(model, tmp_path / "model")
        for other in (V - 1, V + 1):
            with pytest.raises(BundleError, match=str(V)):
                type(model).load(tmp_path / "model", small_catalog(other))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_weights_that_are_not_finite_are_refused(
        self, model: Model, tmp_path: Path, value: float
    ) -> None:
        """In any of the arrays."""
        files_of(model, tmp_path / "model")
        place = tmp_path / "model" / "weights.safetensors"
        whole = storage.read_arrays(place)
        for name in [n for n, array in whole.items() if array.dtype.kind == "f"]:
            spoilt = whole[name].copy()
            spoilt.flat[-1] = value
            storage.write_arrays(place, {**whole, name: spoilt})
            with pytest.raises(BundleError):
                type(model).load(tmp_path / "model", small_catalog(V))

    def test_missing_and_surplus_weights_are_refused(self, model: Model, tmp_path: Path) -> None:
        """Nothing is filled in and nothing ignored."""
        files_of(model, tmp_path / "model")
        place = tmp_path / "model" / "weights.safetensors"
        whole = storage.read_arrays(place)
        lacking = [{n: a for n, a in whole.items() if n != name} for name in whole]
        for weights in [*lacking, {**whole, "surplus": np.zeros(1, np.float32)}]:
            storage.write_arrays(place, weights)
            with pytest.raises(BundleError):
                type(model).load(tmp_path / "model", small_catalog(V))

    def test_unknown_config_keys_are_refused(self, model: Model, tmp_path: Path) -> None:
        """M17: nothing in a config is looked up or ignored."""
        files_of(model, tmp_path / "model")
        place = tmp_path / "model" / "config.json"
        config = storage.read_json(place)
        storage.write_json(place, {**config, "import": "os.system"})
        with pytest.raises(BundleError, match="import"):
            type(model).load(tmp_path / "model", small_catalog(V))

    def test_before_it_is_fitted_it_says_so(self, tmp_path: Path) -> None:
        """Instead of answering with nothing behind it."""
        with pytest.raises(NotFittedError, match="fit"):
            self.create().log_probabilities(asked(), _now(asked()))
        with pytest.raises(NotFittedError, match="fit"):
            self.create().save(tmp_path)

    @pytest.mark.parametrize(
        "items",
        [[[1]], [[1, 1, 1], [1]], [[2], [3]], [[], [1, 2, 3], []], [[], []], []],
        ids=["one", "one item", "no pairs", "one user who bought", "no purchase", "no user"],
    )
    def test_t22_hardly_any_data_give_finite_answers_or_a_reason(
        self, items: list[list[int]]
    ) -> None:
        """Never a NaN, never a traceback of another library."""
        times = [[day * DAY for day in range(len(row))] for row in items]
        train = Histories.from_lists(items, times=times)
        nothing = cases_of(Histories.from_lists([], times=[]), [], as_of=np.array([], np.int64))
        size = max([1, *(item for row in items for item in row)])
        options = FitOptions(epochs=1)
        try:
            model = self.create().fit(train, nothing, small_catalog(size), options)
        except NextbuyError as error:
            assert str(error)
            return
        stranger = Histories.from_lists([[], [1]], times=[[], [0]])
        for histories in (train, stranger):
            log_p = model.log_probabilities(histories, _now(histories))
            assert np.isfinite(log_p[:, 1:]).all()
            np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1.0, atol=1e-4)


def small_catalog(num_items: int) -> Catalog:
    """Items i1, i2, ..."""
    ids = [f"i{i}" for i in range(1, num_items + 1)]
    empty: dict[str, Any] = {
        "item_id": ids,
        "platform": [None] * num_items,
        "category": [None] * num_items,
        "price": [None] * num_items,
        "num_purchases": [0] * num_items,
    }
    types = {"platform": pl.String, "category": pl.String, "price": pl.Float64}
    return Catalog(table=pl.DataFrame(empty, schema_overrides=types).select(COLUMNS))


def small_train() -> Histories:
    """Forty users who walk through the items in a circle, with baskets of one to three items."""
    rng = np.random.default_rng(3)
    items, baskets, times = [], [], []
    for _ in range(40):
        start, steps = int(rng.integers(V - 1)), int(rng.integers(1, 9))
        row, basket = [], []
        for step in range(steps):
            size = int(rng.integers(1, 4))
            chosen = 1 + (start + step + np.arange(size)) % (V - 1)
            row += chosen.tolist()
            basket += [step] * size
        items.append(row)
        baskets.append(basket)
        times.append([number * DAY for number in basket])
    return Histories.from_lists(items, times=times, baskets=baskets)


def small_validation() -> Cases:
    """Eight users of the same kind; one of them buys what the catalog lacks."""
    histories = Histories.from_lists(
        [[i, i % (V - 1) + 1] for i in range(1, 9)], times=[[0, DAY]] * 8
    )
    targets = [[(i + 1) % (V - 1) + 1] for i in range(1, 8)] + [[UNKNOWN]]
    return cases_of(histories, targets, as_of=np.full(8, 2 * DAY))


def cases_of(histories: Histories, targets: list[list[int]], *, as_of: Int64 | None) -> Cases:
    """Cases from plain lists."""
    lengths = [len(row) for row in targets]
    return Cases(
        histories=histories,
        as_of=as_of,
        target_items=np.array([i for row in targets for i in row], dtype=np.int32),
        target_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def asked() -> Histories:
    """Who is asked about: long and short, with repeats, with baskets, and one who never bought."""
    items = [[1, 2, 3], [], [5, 5, 5], [V], [i % V + 1 for i in range(300)], [4, 6, 7]]
    baskets = [[0, 1, 2], [], [0, 1, 2], [0], list(range(300)), [0, 0, 1]]
    times = [[number * DAY for number in row] for row in baskets]
    return Histories.from_lists(items, times=times, baskets=baskets)


def files_of(model: Model, folder: Path) -> dict[str, bytes]:
    """What the model writes, by file name."""
    folder.mkdir()
    model.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _now(histories: Histories) -> Int64:
    return np.full(len(histories), 400 * DAY, dtype=np.int64)
