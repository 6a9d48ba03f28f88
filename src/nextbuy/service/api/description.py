"""What OpenAPI says beside the schemas of bodies: answers, problems, security, limits."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from nextbuy.service.api.examples import show
from nextbuy.service.api.values import described, never_null
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.problems import PROBLEM_TYPE, TITLES

_OF_EVERY_ROUTE: Final = (400, 403, 404, 405, 408, 413, 414, 415, 421, 422, 431, 500, 503, 505)
_WITH_BODY: Final = (409,)
_WITH_KEY: Final = (401, 429)
_RETRY: Final = {429, 503}


class FieldError(BaseModel):
    """One field that is wrong."""

    field: str = Field(description="Where, such as body.purchases.3.user_id")
    message: str


class Problem(BaseModel):
    """A problem as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A URI reference; about:blank means that the status says it all")
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(default=[], description="Where fields are wrong")


def responses_of(
    rule: Rule,
    answers: Mapping[int, type[BaseModel] | dict[str, Any]],
    more: Sequence[int] = (),
    links: Mapping[str, Any] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """Every status that a route may answer, for OpenAPI.

    Args:
        rule: Of the route.
        answers: What it answers when all is well: a model, or how OpenAPI says it.
        more: Statuses of problems besides those that all routes have.
        links: From the answer to other operations.
    """
    statuses = {*_OF_EVERY_ROUTE, *more}
    statuses |= set(_WITH_BODY) if rule.method in ("POST", "PUT", "PATCH") else set()
    statuses |= set(_WITH_KEY) if rule.scope != "public" else set()
    problems: dict[int | str, dict[str, Any]] = {
        status: _problem(status) for status in sorted(statuses)
    }
    for status, answer in answers.items():
        if isinstance(answer, dict):
            problems[status] = answer
        else:
            words = (answer.__doc__ or "").strip().splitlines()[0]
            problems[status] = {"model": answer, "description": words}
            if links:
                problems[status]["links"] = dict(links)
    return problems


def _problem(status: int) -> dict[str, Any]:
    said: dict[str, Any] = {
        "description": TITLES[status],
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in _RETRY:
        said["headers"] = {
            "Retry-After": {
                "description": "Seconds after which another try makes sense",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return said


def describe(app: FastAPI, limits: Limits) -> dict[str, Any]:
    """The OpenAPI document of an application."""
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, routes=app.routes
    )
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(_problem_schemas())
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if "anyOf" in parameter["schema"]:
                    parameter["schema"] = never_null(parameter["schema"])
            show(operation)
    return dict(described(document, limits))


def _problem_schemas() -> dict[str, Any]:
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "Problem": schema}
