"""nextbuy: from a log of purchases, what each customer buys next and where."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextbuy.predictor import Predictor, PredictorConfig

__version__ = "0.1.0"
__all__ = ["Predictor", "PredictorConfig", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the predictor when it is first asked for: `nextbuy --help` needs no engine."""
    if name in ("Predictor", "PredictorConfig"):
        from nextbuy import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'nextbuy' has no attribute {name!r}")
