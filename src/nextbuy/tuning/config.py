"""What is looked for, and for how long."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from nextbuy.data.catalog import Level
from nextbuy.predictor.config import PredictorConfig, SplitName, checked

Metric = Literal["loss", "ndcg@10"]


class TuningConfig(BaseModel):
    """One model, one log, one metric; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "transformer"
    metric: Metric = "loss"
    trials: int = Field(default=30, ge=1, description="finished trials, the default among them")
    time_limit: float | None = Field(
        default=None, gt=0, description="seconds for the search; the comparison comes after it"
    )
    level: Level = "item"
    split: SplitName = "auto"
    epochs: int | None = Field(default=None, ge=1)
    device: str = "cpu"
    seed: int = 0

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A config from plain values.

        Raises:
            ConfigError: In one line, for any value or key that is wrong.
        """
        return checked(cls, values)

    def predictor(self, options: dict[str, Any]) -> PredictorConfig:
        """What trains this model with these options."""
        return PredictorConfig.of(
            models=(self.model,), level=self.level, split=self.split, epochs=self.epochs,
            seed=self.seed, options={self.model: options} if options else {},
        )  # fmt: skip
