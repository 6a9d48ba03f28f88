"""What is looked for, and for how long."""

from typing import Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nextbuy.data.catalog import Level
from nextbuy.errors import ConfigError
from nextbuy.predictor.config import PredictorConfig, SplitName

Metric = Literal["loss", "ndcg@10", "recall@10", "accuracy"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
"""What a trial can be chosen by, and remembers of validation; all but the loss should be high."""


class TuningConfig(BaseModel):
    """One model, one log, one metric; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "transformer"
    metric: Metric = "loss"
    trials: int = Field(default=30, ge=1, description="finished trials, the default among them")
    time_limit: float | None = Field(
        default=None, gt=0, description="seconds in all, the comparison on the test among them"
    )
    level: Level = "item"
    split: SplitName = "auto"
    epochs: int | None = Field(default=None, ge=1)
    device: str = "cpu"
    seed: int = 0
    workers: int = Field(default=1, ge=1, le=256, description="processes that fit at a time")

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A config from plain values.

        Raises:
            ConfigError: In one line, for any value or key that is wrong.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the config"
            raise ConfigError(f"{place}: {first['msg']} (got {first['input']!r}).") from error

    def predictor(self, options: dict[str, Any]) -> PredictorConfig:
        """What trains this model with these options."""
        return PredictorConfig.of(
            models=(self.model,), level=self.level, split=self.split, epochs=self.epochs,
            seed=self.seed, options={self.model: options} if options else {},
        )  # fmt: skip
