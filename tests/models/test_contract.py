"""Every model of the registry keeps the contract."""

import pytest

from nextbuy.models.lstm_rnn import LstmRnn, LstmRnnConfig
from nextbuy.models.personal_frequency import PersonalFrequency
from nextbuy.models.popularity import Popularity
from nextbuy.models.registry import MODELS
from nextbuy.testing import ModelContract


class TestPopularity(ModelContract):
    @classmethod
    def create(cls):
        return Popularity()


class TestPersonalFrequency(ModelContract):
    @classmethod
    def create(cls):
        return PersonalFrequency()


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


def test_no_model_of_the_registry_is_left_out():
    tested = {each.create().name for each in ModelContract.__subclasses__()}
    assert tested == set(MODELS)
