"""A small bundle, fitted once, and keys for it."""

import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.service.guard.keys import add_key
from tests.shop import shop_log


@pytest.fixture(scope="session")
def fitted():
    config = PredictorConfig(models=("popularity", "personal-frequency"), refit=False)
    return Predictor.fit(shop_log(60), config=config)


@pytest.fixture
def shop_folder(fitted, tmp_path):
    """A folder of its own with the bundle."""
    fitted.save(tmp_path / "shop")
    return tmp_path / "shop"


@pytest.fixture
def scoped_keys(tmp_path):
    """A file of keys, and the keys by scope."""
    file = tmp_path / "keys.json"
    return file, {scope: add_key(file, scope, [scope]) for scope in ("read", "write", "admin")}
