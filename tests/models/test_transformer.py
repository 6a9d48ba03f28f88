"""The transformer learns order and habits, and decides by the data what it is made of."""

import numpy as np
import polars as pl
import pytest
import torch

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError
from nextbuy.models.items import MOST_GROUPS, item_codes, item_groups
from nextbuy.models.personal_frequency import PersonalFrequency
from nextbuy.models.protocol import FitOptions
from nextbuy.models.transformer import Transformer, TransformerConfig, repeated_share
from nextbuy.progress import SilentProgress
from nextbuy.testing.contract import small_catalog
from tests.evaluation.table_model import cases_of

V = 6
NOTHING = cases_of(Histories.from_lists([]), [])
TRAINING = {"tokens": 128, "learning_rate": 1e-2, "shuffle": "baskets"}
DAY = 86_400_000_000


def circle(num_users=120):
    """Everybody walks 1, 2, 3, 4, 5, 6, 1 ... from a start of their own; nobody repeats."""
    return Histories.from_lists([[(u + i) % V + 1 for i in range(5)] for u in range(num_users)])


def habits(num_users=200, num_baskets=12, seed=0):
    """Each user has two favourites; item 6 is never bought twice by anybody."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_users):
        mine = 1 + rng.choice(5, 2, replace=False)
        row = rng.choice(mine, num_baskets, p=[0.7, 0.3])
        row[rng.integers(num_baskets)] = 6
        rows.append(row.tolist())
    return Histories.from_lists(rows)


def fit(histories, *, epochs=8, seed=0, **config):
    settings = {"training": TRAINING} | config
    model = Transformer(TransformerConfig(**settings))
    return model.fit(histories, NOTHING, small_catalog(V), FitOptions(epochs=epochs, seed=seed))


def p_next(model, row, **more):
    return np.exp(model.log_probabilities(Histories.from_lists([row], **more), None)[0])


def test_the_order_of_purchases_is_learnt():
    model = fit(circle())
    assert not model.config.repeats
    for start in range(1, 4):
        assert p_next(model, [start, start + 1, start + 2])[start + 3] > 0.8


def test_what_is_due_is_learnt_from_others():
    """Item 1 comes back after a week, item 2 after four; one purchase of each tells no rhythm."""
    rng = np.random.default_rng(0)
    users, times = [], []
    for _ in range(150):
        start = rng.uniform(0, 100)
        days = [(start + 7 * k + rng.normal(0, 0.3), 1) for k in range(1, 16)]
        days += [(start + 28 * k + rng.normal(0, 0.3), 2) for k in range(4)]
        users.append([item for _, item in sorted(days)])
        times.append([int(day * DAY) for day, _ in sorted(days)])
    training = TRAINING | {"tokens": 512}
    model = fit(
        Histories.from_lists(users, times=times), epochs=12, repeats=True, training=training
    )
    asked = Histories.from_lists(
        [[2, 1, 1, 1], [1, 1, 2, 1]],
        times=[[d * DAY for d in days] for days in ([100, 107, 114, 121], [107, 114, 117, 121])],
    )
    due, not_yet = model.log_probabilities(asked, np.array([127 * DAY, 127 * DAY]))[:, 2]
    assert due > not_yet + 1.0


def test_cadences_need_dates():
    row = [1, 2, 1, 2]
    dated = Histories.from_lists([row] * 30, times=[[d * DAY for d in range(1, 5)]] * 30)
    model = Transformer()
    for train, expected in ((dated, V), (Histories.from_lists([row] * 30), 0)):
        shape = model.shape_of(model.config, train, small_catalog(V))
        assert shape.num_groups == expected


def test_groups_are_the_finest_that_fit():
    def groups(num_items, categories, platforms):
        table = small_catalog(num_items).table.with_columns(
            category=pl.Series(
                [f"c{i % categories}" if categories else None for i in range(num_items)]
            ),
            platform=pl.Series([f"p{i % platforms}" for i in range(num_items)]),
        )
        return item_groups(Catalog(table=table, level="item")).tolist()

    assert groups(4, 2, 2) == [0, 0, 1, 2, 3]  # few items have a cadence each
    assert groups(MOST_GROUPS + 1, 3, 2)[:6] == [0, 0, 1, 2, 0, 1]
    assert groups(2 * MOST_GROUPS, MOST_GROUPS + 1, 2)[:5] == [0, 0, 1, 0, 1]
    assert set(groups(2 * MOST_GROUPS, 0, 1)) == {0}


def kinds(num_items, platform_of):
    """A catalog of items on platforms."""
    platforms = [f"p{platform_of(i)}" for i in range(1, num_items + 1)]
    table = small_catalog(num_items).table.with_columns(platform=pl.Series(platforms))
    return Catalog(table=table, level="item")


def test_codes_are_of_what_items_have_in_common():
    catalog = kinds(6, lambda i: i % 2)
    unknown = catalog.table.with_columns(
        platform=pl.when(pl.int_range(6) == 2).then(None).otherwise(pl.col("platform"))
    )
    assert item_codes(catalog).tolist() == [[0, 1, 2, 1, 2, 1, 2]]
    found = item_codes(Catalog(table=unknown, level="item"))
    assert found.tolist() == [[0, 1, 2, 0, 2, 1, 2]]
    assert item_codes(kinds(6, lambda _: 0)).shape == (0, 7)  # all the same says nothing
    assert item_codes(kinds(6, lambda i: i)).shape == (0, 7)  # nor does a platform of its own


def test_what_is_bought_seldom_is_known_by_its_kind():
    """From platform 0 people go to platform 1 and back; items 5 and 6 were bought only once."""
    rng = np.random.default_rng(0)
    rows = [[int(rng.choice([2, 4] if n % 2 else [1, 3])) for n in range(8)] for _ in range(150)]
    rows += [[5], [6]]
    catalog = kinds(6, lambda i: 1 - i % 2)
    found = {}
    for attributes in (True, False):
        config = TransformerConfig(
            training=TRAINING, attributes=attributes, repeats=False, dropout=0.0
        )
        model = Transformer(config).fit(
            Histories.from_lists(rows), NOTHING, catalog, FitOptions(epochs=8)
        )
        found[attributes] = p_next(model, [1, 2, 3, 6])  # after one of platform 0
    assert found[True][[1, 3]].sum() > 0.9
    assert found[False][[1, 3]].sum() < found[True][[1, 3]].sum()


def test_habits_are_learnt_and_what_is_never_bought_twice():
    model = fit(habits(), epochs=4)
    assert model.config.repeats
    p = p_next(model, [2, 2, 4, 6, 2])
    assert p[2] > p[4] > max(p[1], p[3], p[5])
    assert p[2] + p[4] > 0.8
    counting = PersonalFrequency().fit(habits(), NOTHING, small_catalog(V), FitOptions())
    others = habits(seed=1)
    last = others.offsets[1:] - 1
    seen = others.keep(~np.isin(np.arange(others.num_purchases), last))
    ours, theirs = (
        m.log_probabilities(seen, None)[np.arange(len(seen)), others.items[last]].mean()
        for m in (model, counting)
    )
    assert ours > theirs + 0.02


def test_what_the_data_decide_can_be_told_instead():
    short, long = circle(20), Histories.from_lists([[1, 2, 3] * 12] * 5)
    assert fit(short, epochs=1).config.model_dump(exclude={"training", "temperature"}) == {
        "engine": "torch", "device": "cpu", "size": "small", "dropout": 0.5, "taps": 5,
        "gated": False, "repeats": False, "attributes": True, "item_start": "random",
        "chosen_by": "loss",
    }  # fmt: skip
    decided = fit(long, epochs=1).config
    assert (decided.taps, decided.gated, decided.repeats) == (0, True, True)
    told = {"dropout": 0.1, "taps": 2, "gated": True, "repeats": True}
    assert fit(short, epochs=1, **told).config.model_dump(include=set(told)) == told


def test_repeats_are_counted():
    assert repeated_share(Histories.from_lists([[1, 1, 2], [1]])) == 0.25
    assert repeated_share(Histories.from_lists([[]])) == 0.0


@pytest.mark.parametrize("size", ["medium", "large"])
def test_larger_sizes_have_more_weights(size):
    small, larger = (fit(circle(4), epochs=1, size=s).weights() for s in ("small", size))
    assert sum(w.size for w in larger.values()) > 3 * sum(w.size for w in small.values())


def test_tensorflow_is_refused():
    with pytest.raises(ConfigError, match="TensorFlow engine trains lstm-rnn only"):
        fit(circle(9), epochs=1, engine="tensorflow")


@pytest.mark.parametrize("repeats", [True, False])
def test_the_time_of_the_question_counts(repeats):
    """Who comes back within ten days buys 1, who stays away for longer buys 2."""
    rng = np.random.default_rng(0)
    gaps = rng.integers(1, 20, (80, 30))
    rows = [[1, *np.where(row[1:] > 10, 2, 1).tolist()] for row in gaps]
    days = np.cumsum(gaps, axis=1)
    histories = Histories.from_lists(rows, times=(days * DAY).tolist())
    model = fit(histories, epochs=4, repeats=repeats)
    asked = Histories.from_lists([rows[0]] * 2, times=[(days[0] * DAY).tolist()] * 2)
    p = np.exp(model.log_probabilities(asked, (days[0, -1] + np.array([1, 15])) * DAY))
    assert p[0, 2] < 0.5
    assert p[1, 2] > 0.8


def test_what_is_left_of_a_wait_is_thought_less_too_short():
    """Everybody waits 2 or 18 days, as often; who has waited for a day waits for either alike, and
    buys 1 after a short and 2 after a long wait."""
    rng = np.random.default_rng(0)
    gaps = rng.choice([2, 18], (150, 24))
    rows = [[1, *np.where(row[1:] > 2, 2, 1).tolist()] for row in gaps]
    days = np.cumsum(gaps, axis=1)
    histories = Histories.from_lists(rows, times=(days * DAY).tolist())
    asked = Histories.from_lists([rows[0]], times=[(days[0] * DAY).tolist()])
    moment = np.array([days[0, -1] + 1]) * DAY
    found = {}
    for period in (20.0, None):
        model = fit(histories, epochs=6, training=TRAINING | {"period_days": period})
        found[period] = np.exp(model.log_probabilities(asked, moment))[0, 2]
    # Nine of ten questions of the first two days are of short waits, or three of four by weight.
    assert found[None] < 0.2
    assert found[20.0] > found[None] + 0.05


KNOBS = [
    {"size": "medium"},
    {"dropout": 0.9},
    {"taps": 1},
    {"gated": True},
    {"repeats": True},
    {"attributes": False},
    {"temperature": 2.0},
    {"item_start": "spectral"},
    {"training": TRAINING | {"sample_size": 3}},
]


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_every_knob_changes_what_is_learned(knob):
    def answer(**config):
        settings = TransformerConfig(**({"training": TRAINING} | config))
        model = Transformer(settings).fit(
            circle(40), NOTHING, kinds(V, lambda i: i % 2), FitOptions(epochs=1)
        )
        return p_next(model, [1, 2, 1])

    assert not np.array_equal(answer(), answer(**knob))


def test_no_knob_is_left_out():
    turned = {name for knob in KNOBS for name in knob}
    assert turned | {"engine", "device", "chosen_by"} == set(TransformerConfig.model_fields)


class StoppedError(Exception):
    """What a kill looks like from inside."""


class KilledAfter(SilentProgress):
    """Ends the run when so many batches have been trained."""

    def __init__(self, batches):
        self.left = batches

    def advance(self, amount, facts):
        if "targets" in facts:
            self.left -= 1
            if self.left == 0:
                raise StoppedError


@pytest.mark.parametrize("batches", [1, 6, 11])
def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path, batches):
    """Dropout, moments of questions and own items are drawn from the step, not from a state."""
    days = np.arange(12) * DAY
    histories = habits(num_users=40)
    dated = Histories.from_lists(
        [histories.items[s : s + 12].tolist() for s in histories.offsets[:-1]],
        times=[days.tolist()] * 40,
    )
    training = TRAINING | {"checkpoint_seconds": 0.0}

    def run(folder, progress):
        model = Transformer(TransformerConfig(training=training, taps=3, dropout=0.3))
        options = FitOptions(epochs=3, run_folder=folder, progress=progress)
        return model.fit(dated, NOTHING, small_catalog(V), options).weights()

    whole = run(tmp_path / "whole", SilentProgress())
    with pytest.raises(StoppedError):
        run(tmp_path / "killed", KilledAfter(batches))
    again = run(tmp_path / "killed", SilentProgress())
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


def test_a_second_fit_decides_anew():
    model = fit(circle(20), epochs=1)
    model.fit(habits(20), NOTHING, small_catalog(V), FitOptions(epochs=1))
    fresh = fit(habits(20), epochs=1)
    assert model.config == fresh.config
    assert model.config.repeats


def test_own_items_cannot_be_known_in_shuffled_histories():
    with pytest.raises(ConfigError, match="takes that away"):
        fit(habits(9), epochs=1, training=TRAINING | {"shuffle": "histories"})


def test_two_cores_give_the_same_bytes_twice():
    """Gradients of rows that many share are added up in one order, whatever the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rng = np.random.default_rng(0)
        rows = [(1 + rng.integers(0, 5, 300)).tolist() for _ in range(40)]
        log = Histories.from_lists(rows)
        training = TRAINING | {"tokens": 12_000, "longest_window": 300, "sample_size": 4}
        one, again = (fit(log, epochs=2, training=training).weights() for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(one[name], again[name]) for name in one)


def test_validation_chooses_the_temperature_and_a_refit_keeps_it():
    """What was learnt by heart is said too loudly; half of what validation sees is chance."""
    rng = np.random.default_rng(0)
    histories = circle(60)
    answers = [[int(rng.integers(1, V + 1))] for _ in range(60)]
    training = TRAINING | {"patience": 9}
    loud, chosen = (
        Transformer(TransformerConfig(training=training, repeats=False, temperature=t)).fit(
            histories, cases_of(histories, answers, as_of=None), small_catalog(V),
            FitOptions(epochs=6),
        )
        for t in (1.0, None)
    )  # fmt: skip
    assert chosen.config.temperature == 2.5
    cases = cases_of(histories, answers, as_of=None)
    rows, targets = np.arange(60), np.array(answers)[:, 0]
    losses = [
        -m.log_probabilities(cases.histories, None)[rows, targets].mean() for m in (loud, chosen)
    ]
    assert losses[1] < losses[0]
    assert chosen.result.best_score == pytest.approx(losses[1], rel=1e-5)
    again = Transformer(chosen.config).fit(
        histories, NOTHING, small_catalog(V), FitOptions(epochs=1)
    )
    assert again.config.temperature == 2.5
