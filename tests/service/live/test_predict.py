"""What a shop sees of the live model: the answers of the predictor, with the purchases since."""

import asyncio
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextbuy import Predictor
from nextbuy.data.options import ReadOptions
from nextbuy.errors import ConfigError
from nextbuy.models.neural_top_k import Searcher
from nextbuy.predictor import answers
from nextbuy.service.live.bundles import LiveBundles, LiveOptions
from nextbuy.service.live.protocol import Question
from nextbuy.splitting.rules import Rules
from tests.service.live.memory_store import MemoryStore
from tests.service.live.shops import DAY, NOW, TINY, bought, full_log, moment, save
from tests.shop import ITEMS

POLICIES = ("allow", "exclude", "cooldown:30", "cooldown:own")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    save(folder, full_log())
    return folder


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def live(folder, store):
    model = LiveBundles.open(folder, store, clock=lambda: NOW)
    yield model
    model.close()


@pytest.fixture(params=[False, True])
def large(request):
    """Whether the catalog counts as large, so that networks search it."""
    with patch.object(answers, "_LARGE", 0 if request.param else 10**9):
        yield request.param


def ask(live, *questions):
    return asyncio.run(live.predict(questions))


def test_the_next_answer_knows_what_was_bought(live, store):
    (before,) = ask(live, Question(user_id="new"))
    live.bought(store.add(*(bought("new", "0042", 90 + n) for n in range(9))))
    (after,) = ask(live, Question(user_id="new"))
    assert before.fallback
    assert before.after_sequence == 0
    assert not after.fallback
    assert after.after_sequence == 9
    assert after.offers[0].item_id == "0042" != before.offers[0].item_id


def test_what_was_bought_before_anybody_asked_is_known_too(folder, store):
    store.add(*(bought("new", "0042", 90 + n) for n in range(9)))
    live = LiveBundles.open(folder, store, clock=lambda: NOW)
    (answer,) = ask(live, Question(user_id="new"))
    assert answer.offers[0].item_id == "0042"
    assert answer.after_sequence == 9


def test_a_purchase_that_is_told_twice_counts_once(live, store):
    stored = store.add(bought("new", "tea", 90))
    ask(live, Question(user_id="new"))
    live.bought(stored)
    once = ask(live, Question(user_id="new"))
    live.bought(stored)
    assert ask(live, Question(user_id="new")) == once
    assert live.history("new", 10).total == 1


def test_a_raw_history_is_answered_like_the_same_history_of_a_user(live, store):
    rows = tuple(bought("new", item, 80 + n) for n, item in enumerate(["tea", "tea", "milk"]))
    live.bought(store.add(*rows))
    by_id, raw = ask(live, Question(user_id="new"), Question(history=rows))
    assert by_id.offers == raw.offers
    assert raw.user_id is None


def test_who_is_forgotten_is_a_stranger_and_may_begin_again(live, store):
    live.bought(store.add(*(bought("u1", "0042", 91 + n) for n in range(5))))
    nobody, known = ask(live, Question(user_id="nobody"), Question(user_id="u1"))
    assert known.offers != nobody.offers
    store.forget("u1")
    live.forget("u1")
    (forgotten,) = ask(live, Question(user_id="u1"))
    assert forgotten.offers == nobody.offers
    assert forgotten.fallback
    assert live.history("u1", 10).purchases == []
    live.bought(store.add(bought("u1", "soap", 99)))
    assert [each.purchase.item_id for each in live.history("u1", 10).purchases] == ["soap"]
    assert not ask(live, Question(user_id="u1"))[0].fallback
    live.swap("latest")
    assert [each.purchase.item_id for each in live.history("u1", 10).purchases] == ["soap"]


def test_only_the_users_asked_last_stay_in_memory(folder, store):
    live = LiveBundles.open(folder, store, clock=lambda: NOW, options=LiveOptions(cached_users=2))
    asked = [Question(user_id=f"u{n}") for n in range(4)]
    first = ask(live, *asked)
    reads = store.reads
    assert ask(live, *asked[2:]) == first[2:]
    assert store.reads == reads
    assert ask(live, *asked) == first
    assert store.reads == reads + 1


def test_S19_unknown_users_and_items_are_answered_and_told(live):
    rows = (bought("x", "nothing of the kind", 99.0), bought("x", "never seen", 99.5))
    nobody, strange, mixed = ask(
        live,
        Question(user_id="nobody"),
        Question(user_id="x", history=rows),
        Question(history=(*rows, bought("x", "tea", 99.7))),
    )
    assert nobody.fallback
    assert strange.fallback
    assert {offer.item_id for offer in nobody.offers} == set(ITEMS)
    assert nobody.ignored_items == ()
    assert strange.ignored_items == ("nothing of the kind", "never seen")
    assert not mixed.fallback
    assert mixed.ignored_items == strange.ignored_items


def test_S19_at_most_a_hundred_ignored_items_are_told(live):
    rows = tuple(bought("x", f"strange {n % 150}", 90) for n in range(300))
    (answer,) = ask(live, Question(history=rows))
    assert answer.ignored_items == tuple(f"strange {n}" for n in range(100))


@pytest.mark.parametrize("k", [0, -1])
def test_S20_k_starts_at_one(live, k):
    with pytest.raises(ConfigError, match="starts at 1"):
        ask(live, Question(user_id="u1", k=k))


@pytest.mark.parametrize("k", [7, 10**9, 2**63])
def test_S20_a_k_beyond_the_catalog_gives_the_whole_catalog(live, k):
    (answer,) = ask(live, Question(user_id="u1", k=k))
    assert sorted(offer.item_id for offer in answer.offers) == sorted(ITEMS)
    assert sum(offer.probability for offer in answer.offers) == pytest.approx(1, abs=1e-5)


def test_S21_nothing_is_offered_where_rules_exclude_everything(live):
    excluded, other = ask(
        live, Question(user_id="u1", rules=Rules(exclude=ITEMS)), Question(user_id="u1")
    )
    assert excluded.offers == ()
    assert "leave none of the 6 items" in excluded.reason_empty
    assert other.offers
    assert other.reason_empty is None


def test_S21_nothing_is_offered_to_who_owns_everything(tmp_path, store, large):
    save(tmp_path, full_log(), models=("gru",), epochs=1, repeat="exclude")
    live = LiveBundles.open(tmp_path, store, clock=lambda: NOW)
    rows = tuple(bought("x", item, 90 + n) for n, item in enumerate(ITEMS))
    everything, one_left = ask(
        live, Question(history=rows, explain=True), Question(history=rows[:5])
    )
    assert everything.offers == ()
    assert "of the 6 items, the repeat policy exclude" in everything.reason_empty
    assert [offer.item_id for offer in one_left.offers] == [ITEMS[5]]


def test_reasons_are_told_only_where_they_are_wanted(live, store):
    live.bought(store.add(*(bought("new", "soap", day) for day in (60, 70, 80, 90))))
    with_words, without = ask(live, Question(user_id="new", explain=True), Question(user_id="new"))
    words = {offer.item_id: offer.reason for offer in with_words.offers}
    assert words["soap"] == "about every 10 days, last 10 days ago"
    assert words["tea"] == "new to this user"
    assert {offer.reason for offer in without.offers} == {None}


def test_a_moment_sees_what_was_bought_before_it(live, store):
    live.bought(store.add(*(bought("new", "0042", 90 + n) for n in range(5))))
    then, now = ask(live, Question(user_id="new", as_of=moment(90)), Question(user_id="new"))
    nobody = ask(live, Question(user_id="nobody"))[0]
    assert then.fallback
    assert then.offers == nobody.offers
    assert not now.fallback


def test_without_dates_no_moment_can_be_asked(tmp_path, store):
    log = full_log().sort("timestamp").select("user_id", "item_id")
    save(tmp_path, log, ReadOptions(time="order"))
    live = LiveBundles.open(tmp_path, store, clock=lambda: NOW)
    assert ask(live, Question(user_id="u1"))[0].offers
    with pytest.raises(ConfigError, match="only an order"):
        ask(live, Question(user_id="u1", as_of=NOW))


# The answers of the predictor itself


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """One bundle of all models a policy; each is fitted once."""
    folder = tmp_path_factory.mktemp("best")
    predictor = save(folder, full_log(), models=None, preset="best", epochs=1, options=TINY)
    for policy in POLICIES[1:]:
        predictor.config = predictor.config.model_copy(update={"repeat": policy})
        predictor.save(folder)
    return folder


def answered_by(live, version, model):
    """One of the models answers, not the best."""
    live.swap(version)
    live._current.loaded.model = live._current.loaded.predictor.models[model]


def offers_of(frame):
    return [
        (row["item_id"], row["platform"], row["category"], row["reason"])
        for row in frame.iter_rows(named=True)
    ]


@pytest.mark.parametrize("version", range(1, len(POLICIES) + 1))
def test_answers_are_those_of_the_predictor(bundles, store, version, large):
    live = LiveBundles(bundles, store, clock=lambda: NOW)
    name = live.swap(f"{version:06d}")
    predictor = Predictor.load(bundles / "versions" / name)
    assert str(live._current.loaded.policy) == POLICIES[version - 1]
    users, rules = ["u3", "u1", "nobody", "u7"], Rules(exclude=("tea",), per_platform=1)
    as_of = np.full(len(users), NOW)
    for model in predictor.models:
        answered_by(live, name, model)
        for told in (None, rules):
            found = ask(live, *(Question(user_id=u, k=4, rules=told, explain=True) for u in users))
            expected = predictor.predict(users, k=4, model=model, as_of=as_of, rules=told)
            for user, answer in zip(users, found, strict=True):
                mine = expected.filter(expected["user_id"] == user)
                assert [
                    (o.item_id, o.platform, o.category, o.reason) for o in answer.offers
                ] == offers_of(mine), (model, told, user)
                np.testing.assert_allclose(
                    [o.probability for o in answer.offers], mine["probability"], rtol=1e-5
                )


questions = st.lists(
    st.builds(
        Question,
        user_id=st.sampled_from(["u0", "u1", "u2", "u5", "u9", "nobody"]),
        history=st.sampled_from(
            [None, None, (), (bought("x", "tea", 50), bought("x", "soap", 60))]
        ),
        k=st.integers(1, 8),
        as_of=st.sampled_from([None, None, moment(30), moment(99.5)]),
        rules=st.sampled_from(
            [None, None, Rules(allow=("tea", "soap")), Rules(boost_items={"milk": 3.0})]
        ),
        explain=st.booleans(),
    ),
    min_size=1,
    max_size=7,
)


@pytest.fixture(scope="module")
def mixed(bundles):
    live = LiveBundles.open(bundles, MemoryStore(), clock=lambda: NOW)
    live.swap("000003")
    yield live
    live.close()


@pytest.mark.parametrize("model", ["transformer", "blend"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=questions)
def test_a_batch_answers_as_each_question_alone(mixed, model, large, asked):
    if mixed._current.loaded.model.name != model:
        answered_by(mixed, "000003", model)
    together = ask(mixed, *asked)
    for question, answer in zip(asked, together, strict=True):
        (alone,) = ask(mixed, question)
        names = [(o.item_id, o.platform, o.category, o.reason) for o in answer.offers]
        assert names == [(o.item_id, o.platform, o.category, o.reason) for o in alone.offers]
        np.testing.assert_allclose(
            [o.probability for o in answer.offers],
            [o.probability for o in alone.offers],
            rtol=1e-5,
        )
        assert len(answer.offers) <= question.k
        assert (answer.fallback, answer.reason_empty) == (alone.fallback, alone.reason_empty)


def test_a_cooldown_ends_with_the_days_that_it_lasts(bundles, store):
    live = LiveBundles(bundles, store, clock=lambda: NOW)
    live.swap("000003")
    early = Question(history=(bought("x", "tea", 100 - 29),), k=6)
    late = Question(history=(bought("x", "tea", 100 - 30),), k=6)
    kept, offered = ask(live, early, late)
    assert "tea" not in {offer.item_id for offer in kept.offers}
    assert "tea" in {offer.item_id for offer in offered.offers}
    assert NOW - late.history[0].timestamp == DAY * 30


def test_who_asks_again_is_answered_from_what_was_searched(bundles, store, monkeypatch):
    monkeypatch.setattr(answers, "_LARGE", 0)
    searches = []
    search = Searcher.search

    def counted(self, histories, as_of, k):
        searches.append(len(histories))
        return search(self, histories, as_of, k)

    monkeypatch.setattr(Searcher, "search", counted)
    clock = [NOW]
    live = LiveBundles(bundles, store, clock=lambda: clock[0])
    answered_by(live, "000001", "transformer")
    asked = [Question(user_id=user, k=3) for user in ("u1", "u2")]
    searches.clear()
    first = ask(live, *asked)
    clock[0] += 1_000_000  # a second later the time since the last purchase is as good as the same
    again = ask(live, *asked, Question(user_id="u3", k=3))
    assert searches == [2, 1]
    for old, new in zip(first, again[:2], strict=True):
        assert [o.item_id for o in old.offers] == [o.item_id for o in new.offers]
    ask(live, Question(user_id="u1", k=5))
    live.bought(store.add(bought("u1", "soap", 99.9)))
    ask(live, *asked)
    assert searches == [2, 1, 1, 1], "for more offers, and for another history"
    clock[0] += 40 * DAY
    later = ask(live, asked[1])
    assert searches == [2, 1, 1, 1, 1], "for another time since the last purchase"
    fresh = LiveBundles(bundles, store, clock=lambda: clock[0])
    answered_by(fresh, "000001", "transformer")
    assert ask(fresh, asked[1])[0].offers == later[0].offers
