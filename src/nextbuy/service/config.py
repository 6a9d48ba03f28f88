"""Limits and settings of the service; unknown keys are errors, every limit has a test."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """What one client may ask, and how long it may take. Sizes are bytes, times seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(default=2**20, ge=1)
    bulk_bytes: int = Field(default=2**25, ge=1, description="of one NDJSON upload")
    buffered_bytes: int = Field(default=2**27, ge=1, description="of all bodies in memory")
    line_bytes: int = Field(default=2**16, ge=1, description="of one line of it")
    json_depth: int = Field(default=32, ge=1)
    headers: int = Field(default=100, ge=1)
    header_bytes: int = Field(default=2**15, ge=1, description="all headers together")
    path_bytes: int = Field(default=2048, ge=1, description="path and query together")
    id_bytes: int = Field(default=256, ge=1)
    k: int = Field(default=1_000, ge=1)
    users: int = Field(default=1_000, ge=1, description="questions of one request")
    history: int = Field(default=10_000, ge=1, description="purchases of one history")
    purchases: int = Field(default=1_000, ge=1, description="of one JSON request")
    concurrency: int = Field(default=256, ge=1, description="requests that are worked on")
    queue: int = Field(default=256, ge=0, description="requests that wait; more are told 503")
    connections: int = Field(default=4_096, ge=1)
    header_seconds: float = Field(default=10.0, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)
    handler_seconds: float = Field(default=5.0, gt=0, description="but for jobs")
    keep_alive_seconds: float = Field(default=15.0, gt=0)
    write_seconds: float = Field(default=30.0, gt=0, description="for a slow reader")
    rate: float = Field(default=1_000.0, gt=0, description="requests a second of one key")
    burst: int = Field(default=2_000, ge=1)
    future_seconds: float = Field(
        default=86_400.0, ge=0, description="a purchase may lie so far ahead of our clock"
    )
