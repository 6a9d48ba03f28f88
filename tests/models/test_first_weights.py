"""What a network takes along into another catalog, and that it goes on from there."""

import numpy as np
import polars as pl
import pytest

from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import ResumeError
from nextbuy.models.first_weights import Start, carried
from nextbuy.models.gru import Gru
from nextbuy.models.lstm_rnn import LstmRnn
from nextbuy.models.protocol import FitOptions
from nextbuy.models.transformer import Transformer
from tests.evaluation.table_model import cases_of

TABLES = {"embedding.weight": 0, "bias": 1}
NOTHING = cases_of(Histories.from_lists([]), [])
NETWORKS = {
    "transformer": (Transformer, {"size": "small", "training": {"tokens": 128}}),
    "gru": (Gru, {}),
    "lstm-rnn": (LstmRnn, {"embedding_size": 4, "lstm_size": 8, "rnn_size": 8}),
}


def catalog(names, platforms=None, categories=None):
    return Catalog(
        table=pl.DataFrame({
            "item_id": names,
            "platform": platforms or [None] * len(names),
            "category": categories or [None] * len(names),
            "price": [None] * len(names),
            "num_purchases": [1] * len(names),
        }).cast({"platform": pl.String, "category": pl.String, "price": pl.Float64})
    )  # fmt: skip


def table(*rows):
    return np.array(rows, dtype=np.float32)


def test_items_find_their_rows_and_new_ones_keep_what_was_drawn():
    old, new = catalog(["a", "b", "c"]), catalog(["c", "new", "a"])
    before = {
        "embedding.weight": table([0, 0], [1, 1], [2, 2], [3, 3]),
        "bias": table(10.0, 20.0, 30.0),
        "layer.weight": table([5, 5]),
        "wider.weight": table([5, 5, 5]),
    }
    drawn = {
        "embedding.weight": table([7, 7], [8, 8], [9, 9], [6, 6]),
        "bias": table(1.0, 2.0, 3.0),
        "layer.weight": table([4, 4]),
        "another.weight": table([0.5, 0.5]),
        "wider.weight": table([0.25, 0.25]),
    }
    found = carried(drawn, Start(weights=before, catalog=old), new, TABLES)
    assert found["embedding.weight"].tolist() == [[0, 0], [3, 3], [9, 9], [1, 1]]
    # c and a have moved from 1 and 3 to 30 and 10, by 18 on average; the new one goes along.
    assert found["bias"].tolist() == [30, 20, 10]
    assert found["layer.weight"].tolist() == [[5, 5]]
    assert found["another.weight"].tolist() == [[0.5, 0.5]]
    assert found["wider.weight"].tolist() == [[0.25, 0.25]]
    assert drawn["bias"].tolist() == [1, 2, 3]


def test_categories_and_platforms_find_theirs_whatever_their_order():
    names = list("abcdef")
    old = catalog(names, list("xxyyzz"), ["food"] * 3 + ["toys"] * 3)
    new = catalog(names[::-1], list("zzyyxx"), ["toys"] * 2 + ["new"] + ["food"] * 3)
    before = {
        "embedding.shared.0": table([0, 0], [1, 1], [2, 2], [3, 3]),  # unknown, x, y, z
        "embedding.shared.1": table([0, 0], [11, 11], [12, 12]),  # unknown, food, toys
        "repeat_head.cadence.weight": table(*[[i, i] for i in range(7)]),  # all, and each item
    }
    drawn = {
        "embedding.shared.0": np.full((4, 2), -1, np.float32),
        "embedding.shared.1": np.full((4, 2), -1, np.float32),
        "repeat_head.cadence.weight": np.full((7, 2), -1, np.float32),
    }
    found = carried(drawn, Start(weights=before, catalog=old), new, {})
    assert found["embedding.shared.0"][1:, 0].tolist() == [3, 2, 1]
    # d was a toy: its category now is new, and starts as toys were.
    assert found["embedding.shared.1"][1:, 0].tolist() == [12, 12, 11]
    assert found["repeat_head.cadence.weight"][:, 0].tolist() == [0, 6, 5, 4, 3, 2, 1]


def walks(catalog_size, num_users=60, shift=0, start=0):
    """Everybody goes from one item to the next, with dates; from some day on by one step more."""
    day = 86_400_000_000
    rows = [[(u + i * (1 + shift)) % catalog_size + 1 for i in range(8)] for u in range(num_users)]
    times = [[(start + i) * day for i in range(8)] for _ in range(num_users)]
    return Histories.from_lists(rows, times=times)


@pytest.mark.parametrize("name", NETWORKS)
def test_who_learnt_all_answers_in_another_order_of_items_as_before(name):
    kind, config = NETWORKS[name]
    old, new = catalog(list("abcde")), catalog(list("ecadb"))
    log = walks(5)
    model = kind(kind.config_class(**config)).fit(log, NOTHING, old, FitOptions(epochs=2))
    order = [old.table["item_id"].to_list().index(i) + 1 for i in "ecadb"]
    moved = np.empty(6, dtype=np.int32)
    moved[[0, *order]] = range(6)
    same = log.with_items(moved[log.items])
    start = Start(weights=model.weights(), catalog=old, since=int(log.times.max()) + 1)
    again = kind(model.config).fit(same, NOTHING, new, FitOptions(start=start))
    as_of = np.full(len(log), int(log.times.max()) + 1)
    before = model.log_probabilities(log, as_of)[:, order]
    after = again.log_probabilities(same, as_of)[:, 1:6]
    np.testing.assert_allclose(after, before, atol=2e-5)
    assert again.result.num_steps == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_bought_since_is_learnt_in_few_steps(name):
    kind, config = NETWORKS[name]
    known = catalog(list("abcdef"))
    training = {"tokens": 128, "learning_rate": 1e-2, "shuffle": "baskets"}
    model = kind(kind.config_class(**config | {"training": training}))
    early, late = walks(6, 240), walks(6, 240, shift=1, start=100)
    model.fit(early, NOTHING, known, FitOptions(epochs=6))
    both = Histories.from_lists(
        [*_rows(early), *_rows(late)], times=[*_times(early), *_times(late)]
    )
    start = Start(weights=model.weights(), catalog=known, since=50 * 86_400_000_000)
    assert len(start.to_learn(both)) == 240
    again = kind(model.config).fit(both, NOTHING, known, FitOptions(start=start))
    as_of = np.full(len(late), int(late.times.max()) + 1)
    head = late.heads(np.arange(240), late.offsets[:-1] + 7)
    target = late.items[late.offsets[1:] - 1]
    p_before = model.log_probabilities(head, as_of)[np.arange(240), target].mean()
    p_after = again.log_probabilities(head, as_of)[np.arange(240), target].mean()
    assert p_after > p_before + 0.2
    assert again.result.num_steps < model.result.num_steps
    assert again.config.training.peak_rate == model.config.training.peak_rate


def test_a_checkpoint_of_another_start_is_refused(tmp_path):
    log, known = walks(5), catalog(list("abcde"))
    kind, config = NETWORKS["lstm-rnn"]
    model = kind(kind.config_class(**config)).fit(log, NOTHING, known, FitOptions(epochs=1))
    start = Start(weights=model.weights(), catalog=known)
    kind(model.config).fit(log, NOTHING, known, FitOptions(run_folder=tmp_path, start=start))
    other = Start(weights={n: w + 1 for n, w in start.weights.items()}, catalog=known)
    with pytest.raises(ResumeError, match="start: was"):
        kind(model.config).fit(log, NOTHING, known, FitOptions(run_folder=tmp_path, start=other))


def _rows(histories):
    return [r.tolist() for r in np.split(histories.items, histories.offsets[1:-1])]


def _times(histories):
    return [r.tolist() for r in np.split(histories.times, histories.offsets[1:-1])]


def test_who_is_not_known_by_date_is_learnt_whole():
    log = walks(5)
    start = Start(weights={}, catalog=catalog(["a"]))
    assert len(start.to_learn(log)) == len(log)
