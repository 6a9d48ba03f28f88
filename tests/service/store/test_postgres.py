"""The store in PostgreSQL: the contract of stores, and what a server can suffer."""

import itertools

import pytest

from nextbuy.service.store.opening import open_store
from tests.service.store.contract import StoreContract

_names = itertools.count()


@pytest.fixture
def url(postgres):
    return postgres.make_database(f"live_{next(_names)}")


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def reopen(self, url):
        return lambda: open_store(url)
