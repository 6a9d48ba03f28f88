"""Audiences: long work, its progress and its result."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import polars as pl
from fastapi import Header, Query
from starlette.responses import Response, StreamingResponse

from nextbuy.data.spreadsheets import safe_for_spreadsheets
from nextbuy.errors import ModelUnavailableError
from nextbuy.predictor.audience import AudienceRequest
from nextbuy.service.api import answers
from nextbuy.service.api.bodies import AudienceBody
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.routing import StrictRoute, json_response
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.jobs import Job, Jobs
from nextbuy.service.problems import ProblemError

CSV: Final = "text/csv"
JSON_LINES: Final = "application/x-ndjson"
Format = Annotated[
    Literal["csv", "jsonl"] | None, Query(description="instead of what Accept says; default csv")
]
_PIECE: Final = 10_000
_RESULT: Final[dict[str, Any]] = {
    "description": "The table; in CSV nothing is a formula, in JSON lines all is exact",
    "content": {CSV: {"schema": {"type": "string"}}, JSON_LINES: {"schema": {"type": "string"}}},
}
_LINKS: Final = {
    name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}}
    for name in ("get_job", "get_job_result", "cancel_job")
}


class JobRoutes:
    """Begin, watch, fetch, cancel."""

    def __init__(self, parts: ServiceParts, limits: Limits, jobs: Jobs) -> None:
        self._parts, self._limits, self._jobs = parts, limits, jobs

    def routes(self) -> list[StrictRoute]:
        """The routes, to be put into an application."""
        limits, one = self._limits, "/v1/jobs/{job_id}"
        return [
            StrictRoute(
                Rule(method="POST", path="/v1/audience", scope="read"), self.begin_audience,
                limits=limits, summary="Begin to look for the users most likely to buy",
                answers={202: answers.Job}, links=_LINKS,
            ),
            StrictRoute(
                Rule(method="GET", path=one, scope="read"), self.get_job, limits=limits,
                summary="Where a job stands", answers={200: answers.Job},
            ),
            StrictRoute(
                Rule(method="GET", path=f"{one}/result", scope="read", has_deadline=False),
                self.get_job_result, limits=limits, summary="The table that a job made",
                answers={200: _RESULT}, problems=(406, 409),
            ),
            StrictRoute(
                Rule(method="DELETE", path=one, scope="read"), self.cancel_job, limits=limits,
                summary="Stop a job and forget it", answers={200: answers.Job},
            ),
        ]  # fmt: skip

    async def begin_audience(self, body: AudienceBody) -> Response:
        """The job; ask for it until it is done."""
        live, as_of = self._parts.live, body.as_of
        if live.version is None:
            raise ModelUnavailableError("No bundle is loaded, so nobody can be named.")
        asked = body.model_dump(exclude={"as_of"})
        request = AudienceRequest.of(**{**asked, "exclude": frozenset(body.exclude)})
        job = self._jobs.submit(
            lambda progress: live.audience(request, as_of=as_of, progress=progress)
        )
        response = json_response(_shown(job), status=202)
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return response

    async def get_job(self, job_id: str) -> Response:
        """`progress` is the share that is done."""
        return json_response(_shown(_found(self._jobs.find(job_id))))

    async def get_job_result(
        self,
        job_id: str,
        format: Format = None,  # noqa: A002  the word of the query
        accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
    ) -> Response:
        """409 until it is done."""
        kind = _format(format, accept)
        job = _found(self._jobs.find(job_id))
        if job.table is None:
            raise ProblemError(409, f"The job is {job.state}; it has no result.")
        headers = {"Content-Disposition": f'attachment; filename="audience.{kind}"'}
        if kind == "csv":
            return StreamingResponse(_csv(job.table), media_type=CSV, headers=headers)
        return StreamingResponse(_json_lines(job.table), media_type=JSON_LINES, headers=headers)

    async def cancel_job(self, job_id: str) -> Response:
        """Its id means nothing from then on; what runs stops when it next tells its progress."""
        return json_response(_shown(_found(self._jobs.cancel(job_id))))


def _found(job: Job | None) -> Job:
    if job is None:
        raise ProblemError(404, "There is no such job: it was stopped, or it ended a while ago.")
    return job


def _shown(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "state": job.state,
        "progress": job.progress,
        "rows": None if job.table is None else job.table.height,
        "version": job.version,
        "detail": job.detail,
    }


def _format(told: Literal["csv", "jsonl"] | None, accept: str) -> Literal["csv", "jsonl"]:
    """The format that was asked for.

    Raises:
        ProblemError: 406 if it is neither.
    """
    if told is not None:
        return told
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for kind in wanted:
        if kind in (CSV, "text/*", "*/*"):
            return "csv"
        if kind in (JSON_LINES, "application/jsonl", "application/*"):
            return "jsonl"
    raise ProblemError(406, f"A result comes as {CSV} or {JSON_LINES}.")


def _csv(table: pl.DataFrame) -> Iterator[bytes]:
    """A piece at a time, the first one with the names of the columns."""
    for start in range(0, max(table.height, 1), _PIECE):
        piece = safe_for_spreadsheets(table.slice(start, _PIECE))
        yield piece.write_csv(include_header=start == 0).encode()


def _json_lines(table: pl.DataFrame) -> Iterator[bytes]:
    for start in range(0, table.height, _PIECE):
        yield table.slice(start, _PIECE).write_ndjson().encode()
