import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score

from nextbuy.data.histories import UNKNOWN, offsets_of
from nextbuy.metrics import classification
from nextbuy.metrics.classification import (
    confusion,
    macro_precision,
    macro_recall,
    outcomes,
    weighted_precision,
    weighted_recall,
)

OURS = {
    ("macro", "precision"): macro_precision,
    ("macro", "recall"): macro_recall,
    ("weighted", "precision"): weighted_precision,
    ("weighted", "recall"): weighted_recall,
}
THEIRS = {"precision": precision_score, "recall": recall_score}

items = st.integers(1, 6)
pairs = st.lists(st.tuples(items, st.one_of(items, st.just(UNKNOWN))), min_size=1, max_size=30)
basket_pairs = st.lists(st.tuples(items, st.sets(items, min_size=1)), min_size=1, max_size=20)


def found(offered, baskets):
    return outcomes(
        np.array(offered, dtype=np.int32),
        np.array([i for basket in baskets for i in sorted(basket)], dtype=np.int32),
        offsets_of(np.array([len(basket) for basket in baskets])),
    )


def test_values_by_hand():
    counts = confusion(found([1, 1, 2], [{1}, {2}, {3}]))
    assert macro_precision(counts) == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert macro_recall(counts) == pytest.approx((1 + 0 + 0) / 3)
    assert weighted_precision(counts) == pytest.approx(1 / 3 * 1 / 2)
    assert weighted_recall(counts) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("average", "name"), OURS)
@given(pairs)
def test_with_one_target_a_case_it_is_scikit_learn(average, name, rows):
    offered, targets = zip(*rows, strict=True)
    theirs = THEIRS[name](targets, offered, average=average, zero_division=0)
    ours = OURS[average, name](confusion(found(offered, [{t} for t in targets])))
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("average", "name"), OURS)
@given(basket_pairs)
def test_with_baskets_it_is_the_multilabel_form_of_scikit_learn(average, name, rows):
    classes = sorted({offer for offer, _ in rows} | {i for _, basket in rows for i in basket})
    truth = np.array([[c in basket for c in classes] for _, basket in rows]).astype(int)
    offers = np.array([[c == offer for c in classes] for offer, _ in rows]).astype(int)
    if len(classes) == 1:  # scikit-learn takes a single column for a binary problem
        truth, offers = np.hstack([truth, 0 * truth]), np.hstack([offers, 0 * offers])
        average = "weighted"
    theirs = THEIRS[name](truth, offers, average=average, zero_division=0)
    counts = confusion(found([offer for offer, _ in rows], [basket for _, basket in rows]))
    assert OURS[average, name](counts) == pytest.approx(theirs, abs=1e-12)


@given(pairs, st.randoms(use_true_random=False))
def test_a_weighted_count_is_the_count_of_repeated_cases(rows, random):
    weights = [random.randint(0, 3) for _ in rows]
    repeated = [row for row, w in zip(rows, weights, strict=True) for _ in range(w)]
    weighted = confusion(
        found([o for o, _ in rows], [{t} for _, t in rows]), np.array(weights, float)
    )
    plain = confusion(found([o for o, _ in repeated], [{t} for _, t in repeated]))
    for metric in OURS.values():
        assert metric(weighted) == pytest.approx(metric(plain), nan_ok=True)


def test_offering_nothing_is_no_class_of_its_own():
    counts = confusion(found([0, 1], [{1}, {1}]))
    assert macro_precision(counts) == 1
    assert macro_recall(counts) == 1 / 2


def test_no_case_gives_nan():
    for metric in OURS.values():
        assert math.isnan(metric(confusion(found([], []))))


def test_thresholded_counts_every_output_above_a_half_as_keras_does():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(6, 0.3), size=200)
    probabilities[0] = [0.5, 0.5, 0, 0, 0, 0]  # exactly a half is not above it
    targets = rng.integers(0, 6, 200)
    one_hot = np.eye(6, dtype=bool)[targets]
    above = probabilities > 0.5
    cases = found(probabilities.argmax(1) + 1, [{t + 1} for t in targets])
    hits, offered, positives = classification.thresholded(cases, probabilities.max(1))
    assert hits.sum() / offered.sum() == (above & one_hot).sum() / above.sum()
    assert hits.sum() / positives.sum() == (above & one_hot).sum() / one_hot.sum()
    assert offered[0] == 0


def test_a_threshold_below_a_half_is_refused():
    with pytest.raises(ValueError, match=r"0\.3"):
        classification.thresholded(found([1], [{1}]), np.array([0.4]), 0.3)


def test_nothing_out_of_nothing_is_no_number():
    ratios = classification.ratios(np.array([0.0, 1.0]), np.array([0.0, 4.0]))
    assert math.isnan(ratios[0])
    assert ratios[1] == 1 / 4
