"""For authors of models: the contract that every model keeps, as tests to inherit."""

import pytest

# So that its assertions say what they compared, and hold under `python -O` as well.
pytest.register_assert_rewrite("nextbuy.testing.contract")

from nextbuy.testing.contract import ModelContract  # noqa: E402

__all__ = ["ModelContract"]
