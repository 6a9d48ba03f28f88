"""What is answered: models that only describe; the answers themselves are written by orjson."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Stored(_Answer):
    """The purchases are stored, durably."""

    stored: int = Field(ge=1, description="purchases")
    first_sequence: int = Field(ge=1, description="number of the first; others follow")
    repeated: bool = Field(description="whether they had been stored before under this key")


class LineError(_Answer):
    """One line that was not stored."""

    line: int = Field(ge=1)
    reason: str


class BulkStored(_Answer):
    """What became of each line: lines = stored + rejected."""

    lines: int = Field(ge=0, description="that are not blank")
    stored: int = Field(ge=0)
    rejected: int = Field(ge=0)
    repeated: int = Field(ge=0, description="of those stored: had been before, under this key")
    first_sequence: int | None
    errors: list[LineError] = Field(description="the first 100")


class OfferAnswer(_Answer):
    """One item that may come next."""

    item_id: str
    platform: str | None
    category: str | None
    probability: float = Field(ge=0, le=1)
    reason: str | None


class UserAnswer(_Answer):
    """The offers for one question, best first."""

    user_id: str | None
    offers: list[OfferAnswer]
    version: str
    fallback: bool = Field(description="nothing of the history is known to the bundle")
    ignored_items: list[str] = Field(description="item ids that the catalog lacks, at most 100")
    reason_empty: str | None
    after_sequence: int = Field(ge=0, description="purchases up to this one were known")


class Predicted(_Answer):
    """Answers in the order of the questions."""

    answers: list[UserAnswer]


class Forecast(_Answer):
    """One row a user; what is not known is null."""

    version: str
    rows: list[dict[str, Any]]


class Job(_Answer):
    """Long work: where it stands."""

    id: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)
    rows: int | None = Field(ge=0, description="of the result, once it is done")
    version: str | None = Field(description="of the bundle that answered")
    detail: str | None = Field(description="why it failed")


class StoredPurchaseAnswer(_Answer):
    """One purchase of a user; sequence 0 is one that the bundle was trained with."""

    sequence: int = Field(ge=0)
    item_id: str
    timestamp: str
    platform: str | None
    category: str | None
    price: float | None
    quantity: float | None
    basket_id: str | None


class User(_Answer):
    """The newest purchases of a user, or those before another page; oldest first."""

    user_id: str
    purchases: list[StoredPurchaseAnswer]
    total: int = Field(ge=1, description="purchases that are known, on all pages")
    older: str | None = Field(description="as `before` it asks for the page before this one")
    version: str | None = Field(
        description="of the bundle that is among them; null: all are of the store"
    )


class Forgotten(_Answer):
    """The user is forgotten, durably."""

    user_id: str
    deleted: int = Field(ge=0, description="live purchases that were deleted")


class ModelCard(BaseModel):
    """The bundle that answers: models, scores, protocol, sizes."""

    model_config = ConfigDict(extra="allow")

    version: str | None


class Swapped(_Answer):
    """The version that answers from now on."""

    version: str


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"]


class Ready(_Answer):
    """Purchases can be stored and questions answered."""

    status: Literal["ready"]
    version: str


class OpenApi(BaseModel):
    """The description of all routes."""

    model_config = ConfigDict(extra="allow")

    openapi: str
