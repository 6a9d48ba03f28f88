"""How a cluster is used."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from nextbuy.predictor.config import checked


class ClusterConfig(BaseModel):
    """Which cluster, and how many workers; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        default="local",
        description="HOST:PORT of a Ray cluster that this machine belongs to, auto for the one "
        "that runs here, local for one of this machine alone and as long as the command",
    )
    workers: int = Field(default=2, ge=1, description="processes")
    timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description="after which a worker that does not answer is given up; writing a checkpoint "
        "must take less",
    )
    join_seconds: float = Field(default=20.0, gt=0, description="for workers to find each other")
    start_seconds: float = Field(default=120.0, gt=0, description="for their processes to start")
    port: int = Field(default=0, ge=0, le=65535, description="of rank 0; 0 is any that is free")
    most_restarts: int = Field(
        default=3, ge=0, description="in a row, without a new checkpoint or a scored block"
    )

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A config from plain values.

        Raises:
            ConfigError: In one line, for any value or key that is wrong.
        """
        return checked(cls, values)
