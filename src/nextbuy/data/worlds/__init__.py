"""Synthetic markets whose best possible score is known exactly."""

from nextbuy.data.worlds.market import MarketWorld
from nextbuy.data.worlds.market_parameters import MarketConfig
from nextbuy.data.worlds.uniform import UniformConfig, UniformWorld
from nextbuy.data.worlds.world import Questions, World

__all__ = ["MarketConfig", "MarketWorld", "Questions", "UniformConfig", "UniformWorld", "World"]
