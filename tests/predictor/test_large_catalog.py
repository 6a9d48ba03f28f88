"""A large catalog is scored on fewer cases, and the scores say so."""

from nextbuy.metrics.ranking import MISSED
from nextbuy.predictor import fitting
from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.predictor import Predictor
from nextbuy.report.data import protocol_lines
