"""Problems as the service tells them: RFC 9457 objects, and which error is which status."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.responses import Response

from nextbuy.errors import (
    BundleError,
    ConfigError,
    ConflictError,
    DataError,
    ModelUnavailableError,
    NextbuyError,
    OverloadedError,
    StoreError,
    StoreUnavailableError,
    TooManyJobsError,
)

_log = logging.getLogger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"

TITLES: Final[Mapping[int, str]] = {
    400: "The request is malformed",
    401: "A key is needed",
    403: "This key may not do that",
    404: "There is no such thing here",
    405: "The method is not allowed here",
    406: "No such format",
    409: "The request is at odds with what is there",
    408: "The body did not arrive in time",
    413: "The request is too large",
    414: "The address is too long",
    415: "The body has another type than the route takes",
    421: "This server is not meant",
    422: "The request cannot be followed",
    429: "Too many requests",
    431: "The headers are too large",
    500: "The service failed",
    503: "The service cannot answer now",
    505: "The version of HTTP is not spoken",
}
"""Of each status that is told as a problem."""


class ProblemError(NextbuyError):
    """A request ends with a status; the edge turns it into a problem object.

    Args:
        status: HTTP status.
        detail: What was asked, what was found, what to do.
        errors: `{"field": "body.k", "message": "..."}` for each field that is wrong.
        headers: To be sent with it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors
        self.headers = headers or {}


def problem_response(
    status: int,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem object: `type`, `title`, `status`, `detail` and, where fields are wrong, `errors`.

    What a client sent is never part of it, but for names of fields.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(status, "The request was refused"),
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    return Response(
        orjson.dumps(body), status_code=status, media_type=PROBLEM_TYPE, headers=dict(headers or {})
    )


_STORE_AWAY: Final = "The store of purchases cannot be used now."
_STATUSES: Final[tuple[tuple[type[NextbuyError], int], ...]] = (
    (ConflictError, 409),
    (ModelUnavailableError, 503),
    (TooManyJobsError, 429),  # before what it is a kind of
    (OverloadedError, 503),
    (StoreError, 503),
    (BundleError, 409),
    (ConfigError, 422),
    (DataError, 422),
)


def retry_headers(seconds: float) -> dict[str, str]:
    """When another try makes sense: whole seconds, rounded up, at least 1."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def problem_of(error: NextbuyError) -> Response | None:
    """What a client is told of an error that was raised on purpose; None if it is our own fault.

    `Retry-After` (whole seconds, rounded up) goes with what may be tried again.
    """
    if isinstance(error, ProblemError):
        return problem_response(
            error.status, str(error), errors=error.errors, headers=error.headers
        )
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            headers: dict[str, str] = {}
            if isinstance(error, OverloadedError | StoreUnavailableError):
                headers = retry_headers(error.retry_after_seconds)
            if isinstance(error, StoreError):  # its message may name paths and servers
                _log.warning("the store: %s", error)
                return problem_response(status, _STORE_AWAY, headers=headers)
            return problem_response(status, str(error), headers=headers)
    return None
