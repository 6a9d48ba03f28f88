"""What a predictor is made of."""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nextbuy.data.catalog import Level
from nextbuy.errors import ConfigError
from nextbuy.models.protocol import Model
from nextbuy.models.registry import create
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.rules import Rules

SplitName = Literal["auto", "temporal", "leave-last-out", "held-out-users"]
Preset = Literal["fast", "balanced", "best"]

_COUNTING = ("popularity", "recency-popularity", "personal-frequency", "markov", "tifu-knn")
_BALANCED = (*_COUNTING, "item-knn", "ease", "up-cf", "transformer")
PRESETS: Final[Mapping[Preset, tuple[str, ...]]] = {
    "fast": _COUNTING,
    "balanced": _BALANCED,
    "best": (*_BALANCED, "lstm-rnn"),
}
"""Models by what they cost: counting takes seconds, one network minutes, two twice as many."""

_LSTM_RNN = "lstm-rnn"
_TENSORFLOW = "-tensorflow"


_Config = TypeVar("_Config", bound=BaseModel)


def checked(kind: type[_Config], values: Mapping[str, Any], about: str = "") -> _Config:
    """A config from plain values.

    Args:
        kind: Its class.
        values: By name.
        about: What an error begins with.

    Raises:
        ConfigError: In one line, for the first value or key that is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the config"
        raise ConfigError(f"{about}{place}: {first['msg']} (got {first['input']!r}).") from error


class PredictorConfig(BaseModel):
    """What a predictor is made of; unknown keys are errors.

    `models` are names of the registry; without them `preset` chooses. `options` gives a model's own
    config by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset = "balanced"
    models: tuple[str, ...] | None = Field(default=None, min_length=1)
    level: Level = "item"
    split: SplitName = "auto"
    repeat: str = "allow"
    rules: Rules | None = None
    blend: bool = True
    epochs: int | None = Field(default=None, ge=1)
    time_limit: float | None = Field(
        default=None, gt=0, description="seconds from reading to the published bundle"
    )
    memory_limit: float | None = Field(
        default=None, gt=0, description="MiB that the process may hold while models are fitted"
    )
    refit: bool = Field(
        default=True,
        description="once choices are made, fit again on everything before the test period",
    )
    refit_full: bool = Field(default=False, description="after scoring, fit again on the whole log")
    seed: int = 0
    options: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _are_distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError(f"a model is named twice in {', '.join(value)}")
        return value

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.refit_full and self.time_limit is not None:
            raise ValueError("refit_full fits everything twice; a time_limit leaves no room for it")
        return self

    @model_validator(mode="after")
    def _engine_is_used(self) -> Self:
        engine = self.options.get(_LSTM_RNN, {}).get("engine", "torch")
        if engine != "torch" and _LSTM_RNN not in self.chosen_models:
            raise ValueError(
                f"the engine {engine} trains {_LSTM_RNN}, which is not among "
                f"{', '.join(self.chosen_models)}; choose --preset best or name it in --models"
            )
        return self

    @field_validator("repeat")
    @classmethod
    def _is_a_policy(cls, value: str) -> str:
        RepeatPolicy.parse(value)
        return value

    @property
    def chosen_models(self) -> tuple[str, ...]:
        """The models that were named, or those of the preset."""
        return PRESETS[self.preset] if self.models is None else self.models

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A config from plain values, as they come from flags or files.

        Raises:
            ConfigError: In one line, for any value or key that is wrong.
        """
        return checked(cls, values)


def create_model(name: str, config: PredictorConfig) -> Model:
    """A model by the name it is shown under; `lstm-rnn-tensorflow` is `lstm-rnn` on that engine.

    Raises:
        ConfigError: If there is no such model, or its options are wrong.
    """
    kind = name.removesuffix(_TENSORFLOW)
    settings = dict(config.options.get(kind, {}))
    if name != kind:
        settings["engine"] = "tensorflow"
    return create(kind, **settings)
