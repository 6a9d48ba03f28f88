"""Every model of the registry keeps the contract, and the contract catches models that do not."""

import inspect

import numpy as np
import pytest

from nextbuy import storage
from nextbuy.errors import BundleError, TimeIsUpError
from nextbuy.models.ease import Ease, EaseConfig
from nextbuy.models.gru import Gru
from nextbuy.models.item_knn import ItemKnn
from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.markov import Markov
from nextbuy.models.personal_frequency import PersonalFrequency
from nextbuy.models.popularity import Popularity
from nextbuy.models.protocol import top_k
from nextbuy.models.recency_popularity import RecencyPopularity
from nextbuy.models.registry import MODELS
from nextbuy.models.tifu_knn import TifuKnn, TifuKnnConfig
from nextbuy.models.transformer import Transformer, TransformerConfig
from nextbuy.models.up_cf import UpCf
from nextbuy.testing import ModelContract


class TestPopularity(ModelContract):
    @classmethod
    def create(cls):
        return Popularity()


class TestPersonalFrequency(ModelContract):
    @classmethod
    def create(cls):
        return PersonalFrequency()


class TestRecencyPopularity(ModelContract):
    @classmethod
    def create(cls):
        return RecencyPopularity()


class TestMarkov(ModelContract):
    @classmethod
    def create(cls):
        return Markov()


class TestItemKnn(ModelContract):
    @classmethod
    def create(cls):
        return ItemKnn()


class TestEase(ModelContract):
    @classmethod
    def create(cls):
        return Ease()


class TestSparseEase(ModelContract):
    @classmethod
    def create(cls):
        return Ease(EaseConfig(dense_items=1, neighbours=4))


class TestTifuKnn(ModelContract):
    @classmethod
    def create(cls):
        return TifuKnn(TifuKnnConfig(neighbours=5))


class TestUpCf(ModelContract):
    @classmethod
    def create(cls):
        return UpCf()


class TestLstmRnnOnTorch(ModelContract):
    @classmethod
    def create(cls):
        return LstmRnn(LstmRnnConfig(embedding_size=4, lstm_size=8, rnn_size=8))


@pytest.mark.tensorflow
class TestLstmRnnOnTensorFlow(ModelContract):
    @classmethod
    def create(cls):
        return LstmRnn(
            LstmRnnConfig(embedding_size=4, lstm_size=8, rnn_size=8, engine="tensorflow")
        )


class TestGru(ModelContract):
    @classmethod
    def create(cls):
        return Gru()


class TestTransformer(ModelContract):
    @classmethod
    def create(cls):
        return Transformer(TransformerConfig(repeats=True))


class TestTransformerWithoutRepeats(ModelContract):
    @classmethod
    def create(cls):
        return Transformer(TransformerConfig(repeats=False, gated=False, taps=5))


def test_no_model_of_the_registry_is_left_out():
    tested = {each.create().name for each in ModelContract.__subclasses__()}
    assert tested == set(MODELS)


class Answering(Popularity):
    """Popularity whose answer goes through `change(answer, histories, as_of)`."""

    def log_probabilities(self, histories, as_of):
        return self.change(super().log_probabilities(histories, as_of), histories, as_of)


def answers(change):
    return type("Broken", (Answering,), {"change": staticmethod(change)})


def first_of_the_last_basket(answer, histories, _):
    """Moves probability by the purchase that happens to be written last."""
    for row, end in enumerate(histories.offsets[1:]):
        if end > 0 and len(histories) == 1:
            answer[row, 1:] = np.roll(answer[row, 1:], int(histories.items[end - 1]))
    return answer


def needs_a_purchase(answer, histories, _):
    answer[histories.lengths == 0] = np.nan
    return answer


def knows_users_by_name(answer, histories, _):
    for row, user in enumerate(histories.user_ids):
        answer[row, 1:] = np.roll(answer[row, 1:], len(user))
    return answer


def drifts(answer, histories, _):
    answer[:, 1:] += (1e-8 * histories.lengths[:, None]).astype(np.float32)
    return answer


def needs_dates(answer, _, as_of):
    assert as_of is not None
    return answer


def writes_into_what_it_is_asked(answer, histories, _):
    histories.items[:] = np.sort(histories.items)
    return answer


class GivesUpWithoutAReason(Popularity):
    def fit(self, train, validation, catalog, options):
        if options.seconds_left() <= 0:
            raise TimeIsUpError
        return super().fit(train, validation, catalog, options)


class Unseeded(Popularity):
    def fit(self, *arguments):
        super().fit(*arguments)
        self._log_popularity += np.float32(np.random.default_rng().uniform(1, 2))
        return self


class SortsTheTrainingData(Popularity):
    def fit(self, train, *arguments):
        train.items.sort()
        return super().fit(train, *arguments)


class FailsOnOneItem(Popularity):
    def fit(self, train, validation, catalog, options):
        if len(catalog) == 1:
            raise ZeroDivisionError
        return super().fit(train, validation, catalog, options)


class KeepsTheFirstFit(Popularity):
    def fit(self, *arguments):
        return self if self._log_popularity is not None else super().fit(*arguments)


class NeedsValidation(Popularity):
    def fit(self, train, validation, catalog, options):
        assert (validation.target_items > 0).any() or train.num_purchases < 10
        return super().fit(train, validation, catalog, options)


class AnswersUnfitted(Popularity):
    def log_probabilities(self, histories, as_of):
        if self._log_popularity is None:
            return np.zeros((len(histories), 10), np.float32)
        return super().log_probabilities(histories, as_of)


class SavesRounded(Popularity):
    def save(self, folder):
        super().save(folder)
        stored = storage.read_arrays(folder / "weights.safetensors")
        rounded = {n: a.astype(np.float16).astype(np.float32) for n, a in stored.items()}
        storage.write_arrays(folder / "weights.safetensors", rounded)


class LoadsAnything(Popularity):
    """Checks nothing, and falls back to nothing in particular."""

    @classmethod
    def load(cls, folder, catalog):
        model = cls()
        stored = storage.read_arrays(folder / "weights.safetensors")
        values = stored.get("log_popularity", np.zeros(9, np.float32))
        model._log_popularity = np.r_[np.float32(-np.inf), values].astype(np.float32)
        return model


class ForgetsWhatIsBlocked(Popularity):
    """Searches, and offers what may not be offered."""

    def top_k(self, histories, as_of, k, *, blocked):
        return top_k(self.log_probabilities(histories, as_of), k)


class RefusesEverything(Popularity):
    @classmethod
    def load(cls, folder, catalog):
        raise BundleError("9 items, import, finite")


BROKEN = [
    ("rows_are_distributions", answers(lambda p, *_: p.astype(np.float64))),
    ("rows_are_distributions", answers(lambda p, *_: p[:, 1:])),
    ("rows_are_distributions", answers(lambda p, *_: p + np.float32(0.001))),
    ("rows_are_distributions", answers(lambda p, *_: np.maximum(p, -50))),
    ("rows_are_distributions", answers(needs_a_purchase)),
    ("empty_history_of_a_stranger", answers(needs_a_purchase)),
    ("no_histories_give_no_rows", answers(lambda p, *_: p if len(p) else p[:, :0])),
    ("depends_on_its_own_history", answers(lambda p, *_: p + np.float32(1e-4 * len(p)))),
    ("depends_on_its_own_history", answers(knows_users_by_name)),
    ("a_very_long_history", answers(drifts)),
    ("a_search_finds", ForgetsWhatIsBlocked),
    ("order_inside_a_basket", answers(first_of_the_last_basket)),
    ("order_of_time_alone", answers(needs_dates)),
    ("handed_in_is_changed", SortsTheTrainingData),
    ("handed_in_is_changed", answers(writes_into_what_it_is_asked)),
    ("fitting_again_forgets", KeepsTheFirstFit),
    ("validation_that_says_nothing", NeedsValidation),
    ("when_the_time_is_up", GivesUpWithoutAReason),
    ("same_seed_gives_the_same_bytes", Unseeded),
    ("loaded_model_answers", SavesRounded),
    ("loaded_model_answers", RefusesEverything),
    ("files_of_another_catalog", LoadsAnything),
    ("not_finite_are_refused", LoadsAnything),
    ("missing_and_surplus", LoadsAnything),
    ("unknown_config_keys", LoadsAnything),
    ("before_it_is_fitted", AnswersUnfitted),
    ("t22_hardly_any_data", FailsOnOneItem),
]


def outcomes(broken, part_of_name, folder):
    """Whether the one contract test of this name holds, for each of its parameters."""
    contract = type("Contract", (TestPopularity,), {"create": classmethod(lambda cls: broken())})
    (name,) = [n for n in dir(contract) if n.startswith("test_") and part_of_name in n]
    test = getattr(contract(), name)
    marks = getattr(test, "pytestmark", [])
    values = marks[0].args[1] if marks else [None]
    wanted = inspect.signature(test).parameters
    for number, value in enumerate(values):
        (folder / str(number)).mkdir()
        given = {"tmp_path": folder / str(number)}
        if "model" in wanted:
            given["model"] = contract.fitted()
        given |= {marks[0].args[0]: value} if marks else {}
        try:
            test(**{name: given[name] for name in wanted})
        except (Exception, pytest.fail.Exception):
            yield False
        else:
            yield True


@pytest.mark.parametrize(
    ("part_of_name", "broken"), BROKEN, ids=[f"{n}-{i}" for i, (n, _) in enumerate(BROKEN)]
)
def test_the_contract_catches(part_of_name, broken, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "whole").mkdir()
    assert not all(outcomes(broken, part_of_name, tmp_path / "broken"))
    assert all(outcomes(Popularity, part_of_name, tmp_path / "whole"))


def test_every_part_of_the_contract_has_a_model_that_breaks_it():
    parts = [name for name in dir(ModelContract) if name.startswith("test_")]
    assert [p for p in parts if not any(name in p for name, _ in BROKEN)] == []
