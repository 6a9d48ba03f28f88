"""What every network can be told, and what a checkpoint of it must agree with."""

import hashlib
import importlib.metadata
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nextbuy import __version__
from nextbuy.data.histories import Histories, Int64
from nextbuy.training.engine import EngineName, Shape, TrainingConfig


class NeuralConfig(BaseModel):
    """What every network can be told; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName = "torch"
    device: str = Field(default="cpu", description="cpu, cuda or cuda:N; torch only")
    temperature: float | None = Field(
        default=None, gt=0, description="of the softmax over the catalog; validation chooses"
    )
    item_start: Literal["auto", "spectral", "random"] = Field(
        default="auto",
        description="where the vectors of items start: by what is bought near each other, or "
        "drawn; auto is spectral in catalogs of 1,000 to 300,000 items that are bought less than "
        "100 times on average",
    )
    chosen_by: Literal["auto", "loss", "ndcg"] = Field(
        default="auto",
        description="what chooses the epoch on validation: the loss, or ndcg@10 of items that are "
        "new to the user; auto is ndcg for a transformer without a repeat head, where validation "
        "asks a thousand times or more, and the loss everywhere else",
    )
    training: TrainingConfig = TrainingConfig()


def identity(
    config: NeuralConfig,
    shape: Shape,
    train: Histories,
    codes: Int64,
    seed: int,
    *,
    start: str | None = None,
) -> dict[str, Any]:
    """What a checkpoint must agree with: everything that changes the resulting bytes; `start` is a
    digest of the weights that were gone on from."""
    library = "torch" if config.engine == "torch" else "tensorflow-cpu"
    chosen = config.training.model_dump(mode="json", exclude={"checkpoint_seconds"})
    return {
        "nextbuy": __version__,
        library: importlib.metadata.version(library),
        "engine": config.engine,
        "device": config.device,
        "item_start": config.item_start,
        "chosen_by": config.chosen_by,
        **{f"training.{key}": value for key, value in chosen.items()},
        **{f"network.{key}": value for key, value in shape.model_dump(mode="json").items()},
        "seed": seed,
        **({} if start is None else {"start": start}),
        "data": _digest(train, codes, with_times=bool(getattr(shape, "knows_times", False))),
    }


def _digest(histories: Histories, codes: Int64, *, with_times: bool) -> str:
    digest = hashlib.sha256()
    times = (histories.times,) if with_times else ()
    for array in (histories.items, histories.baskets, histories.offsets, codes, *times):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
