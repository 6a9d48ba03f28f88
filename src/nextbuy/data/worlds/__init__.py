"""Synthetic markets whose best possible score is known exactly."""

from nextbuy.data.worlds.uniform import UniformConfig, UniformWorld
from nextbuy.data.worlds.world import Questions, World

__all__ = ["Questions", "UniformConfig", "UniformWorld", "World"]
