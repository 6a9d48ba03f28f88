"""Many purchases in one request: NDJSON, stored in batches while it still comes in."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from nextbuy.errors import OverloadedError, StoreError, StoreUnavailableError
from nextbuy.service.api import strict_json
from nextbuy.service.api.answers import BulkStored
from nextbuy.service.api.bodies import PurchaseBody
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.purchase_routes import IdempotencyKey, latest_moment, too_far_ahead
from nextbuy.service.api.routing import StrictRoute, check_type, first_error, json_response
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.problems import ProblemError, retry_headers
from nextbuy.service.purchases import LivePurchase
from nextbuy.service.store.protocol import Receipt, Submission

MOST_ERRORS: Final = 100
TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
BATCH_LINES: Final = 1_000
_BATCH_BYTES: Final = 2**20
_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "One purchase a line, as in POST /v1/purchases; blank lines do not count.",
        "content": {kind: {"schema": {"type": "string"}} for kind in TYPES},
    }
}


@dataclass(slots=True)
class _Line:
    """A line that is not blank, by its number in the upload; too long ones come cut."""

    number: int
    text: bytes
    is_cut: bool = False


@dataclass(slots=True)
class _Tally:
    """What became of the lines so far."""

    lines: int = 0
    stored: int = 0
    rejected: int = 0
    repeated: int = 0
    first_sequence: int | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    def count(self, receipt: Receipt) -> None:
        """A batch is stored."""
        self.stored += receipt.count
        self.repeated += receipt.count if receipt.is_repeat else 0
        if self.first_sequence is None:
            self.first_sequence = receipt.first_sequence

    def reject(self, number: int, reason: str) -> None:
        """A line is not stored."""
        self.rejected += 1
        if len(self.errors) < MOST_ERRORS:
            self.errors.append({"line": number, "reason": reason})


class BulkRoutes:
    """Each batch is a submission with a key of its own, made from the client's and its number: the
    same upload under the same key is cut the same way and stored once, even if it broke off."""

    def __init__(self, parts: ServiceParts, limits: Limits) -> None:
        self._parts, self._limits = parts, limits

    def routes(self) -> list[StrictRoute]:
        """The routes, to be put into an application."""
        rule = Rule(method="POST", path="/v1/purchases/bulk", scope="write", is_bulk=True)
        return [
            StrictRoute(
                rule, self.store_bulk, limits=self._limits, extra=_BODY,
                summary="Store many purchases, one a line", answers={200: BulkStored},
            )
        ]  # fmt: skip

    async def store_bulk(
        self, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Store what can be stored; lines = stored + rejected."""
        check_type(request, TYPES)
        key = f"b:{idempotency_key}" if idempotency_key else f"r:{secrets.token_hex(16)}"
        tally, number = _Tally(), 0
        waiting: asyncio.Future[Receipt] | None = None
        try:
            async for batch in _batches(_lines(request, self._limits)):
                submission = await run_in_threadpool(self._submission, batch, tally, key, number)
                number += 1
                if waiting is not None:  # the batch before is written while this one is read
                    tally.count(await waiting)
                    waiting = None
                if submission is not None:
                    waiting = asyncio.wrap_future(self._parts.committer.submit(submission))
                    waiting.add_done_callback(_look)
            if waiting is not None:
                tally.count(await waiting)
        except (StoreError, OverloadedError) as error:
            raise _broken_off(error, tally) from error
        return json_response(tally)

    def _submission(
        self, batch: list[_Line], tally: _Tally, key: str, number: int
    ) -> Submission | None:
        """The good lines of a batch; None if there is none. Runs in a thread."""
        now = self._parts.now()
        latest = latest_moment(now, self._limits)
        digest, bought = hashlib.sha256(), []
        for line in batch:
            digest.update(line.text + b"\n")
            tally.lines += 1
            found = self._purchase(line, now, latest)
            if isinstance(found, str):
                tally.reject(line.number, found)
            else:
                bought.append(found)
        if not bought:
            return None
        return Submission(
            key=f"{key}:{number}", digest=digest.digest(), purchases=tuple(bought), received=now
        )

    def _purchase(self, line: _Line, now: int, latest: int) -> LivePurchase | str:
        """The purchase of a line, or why it is none."""
        limits = self._limits
        if line.is_cut:
            return f"a line has at most {limits.line_bytes} bytes"
        try:
            value = strict_json.parse(
                line.text, most_depth=limits.json_depth, most_keys=limits.json_keys, name="line"
            )
            purchase = PurchaseBody.model_validate(value, context=limits).live(now)
        except ProblemError as error:
            return str(error)
        except ValidationError as error:
            return first_error(error)
        return too_far_ahead(purchase, latest) or purchase


def _look(waiting: "asyncio.Future[Receipt]") -> None:
    """See the error of a batch that nobody waits for any more."""
    if not waiting.cancelled():
        waiting.exception()


def _broken_off(error: StoreError | OverloadedError, tally: _Tally) -> ProblemError:
    headers: dict[str, str] = {}
    if isinstance(error, OverloadedError | StoreUnavailableError):
        headers = retry_headers(error.retry_after_seconds)
    return ProblemError(
        503,
        f"Storing broke off: {tally.stored} purchases of the lines so far are stored. Send it all "
        "again under the same Idempotency-Key; without one, they would be stored twice.",
        headers=headers,
    )


async def _lines(request: Request, limits: Limits) -> AsyncIterator[_Line]:
    """The lines that are not blank, as they come in; never more than one line too long is held."""
    rest, number, size, is_cut = bytearray(), 0, 0, False
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.bulk_bytes:
            raise ProblemError(413, f"An upload has at most {limits.bulk_bytes} bytes.")
        for place, part in enumerate(chunk.split(b"\n")):
            if place:  # before each part but the first a line has ended
                number += 1
                if rest.strip():
                    yield _Line(number, bytes(rest), is_cut)
                rest, is_cut = bytearray(), False
            rest += part
            if len(rest) > limits.line_bytes:
                is_cut = True
                del rest[limits.line_bytes :]
    if rest.strip():
        yield _Line(number + 1, bytes(rest), is_cut)


async def _batches(lines: AsyncIterator[_Line]) -> AsyncIterator[list[_Line]]:
    """Cut by what is in them alone, never by how they came in."""
    batch: list[_Line] = []
    size = 0
    async for line in lines:
        batch.append(line)
        size += len(line.text)
        if len(batch) == BATCH_LINES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
