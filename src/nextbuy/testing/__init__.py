"""For authors of models: the contract that every model keeps, as tests to inherit."""

from nextbuy.testing.contract import ModelContract

__all__ = ["ModelContract"]
