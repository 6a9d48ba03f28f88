"""A small bundle, fitted once, keys for it, and PostgreSQL where it is installed."""

import shutil
import tempfile
from pathlib import Path

import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.service.guard.keys import add_key
from tests.service.postgres_server import PostgresServer
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


@pytest.fixture(scope="session")
def postgres():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="nextbuy-postgres-"))
    server = PostgresServer(found[-1].parent, folder)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder)
