"""What a user holds: fit on a log, read the scores, predict, save, load."""

from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.fitting import LeaderboardRow
from nextbuy.predictor.predictor import Predictor

__all__ = ["LeaderboardRow", "Predictor", "PredictorConfig"]
