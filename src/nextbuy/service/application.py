"""The application: its routes, what they work with, and how it ends."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from nextbuy import __version__
from nextbuy.errors import ConfigError
from nextbuy.service.api.answers import OpenApi
from nextbuy.service.api.bulk_routes import BulkRoutes
from nextbuy.service.api.description import describe
from nextbuy.service.api.job_routes import JobRoutes
from nextbuy.service.api.model_routes import ModelRoutes
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.predict_routes import PredictRoutes
from nextbuy.service.api.purchase_routes import PurchaseRoutes
from nextbuy.service.api.routing import StrictRoute
from nextbuy.service.api.user_routes import UserRoutes
from nextbuy.service.config import Limits, ServiceSettings
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.jobs import Jobs
from nextbuy.service.problems import problem_response

logger = logging.getLogger(__name__)


def create_app(
    parts: ServiceParts,
    settings: ServiceSettings,
    *,
    jobs: Jobs | None = None,
    more: Sequence[tuple[Rule, BaseRoute]] = (),
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        parts: Store, live model and so on; they are closed when the application ends.
        settings: Limits above all.
        jobs: Where long work runs; closed with the parts.
        more: Routes with their rules, such as those of the page.
    """
    limits, jobs = settings.limits, jobs or Jobs(settings.jobs)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        logger.info("stopping: what was accepted is stored first")
        jobs.close()
        parts.close()
        logger.info("stopped")

    own = [
        *PurchaseRoutes(parts, limits).routes(),
        *BulkRoutes(parts, limits).routes(),
        *PredictRoutes(parts, limits).routes(),
        *JobRoutes(parts, limits, jobs).routes(),
        *UserRoutes(parts, limits).routes(),
        *ModelRoutes(parts, limits, ready_seconds=settings.ready_seconds).routes(),
    ]
    app = FastAPI(
        title="nextbuy",
        version=__version__,
        summary="What each customer buys next",
        routes=[*own, *(route for _, route in more)],
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_problem, Exception: _failure},
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    own.append(_openapi_route(app, limits))
    app.router.routes.append(own[-1])
    for route in own:
        route.on_error = parts.failed
    app.state.rules = [*(route.rule for route in own), *(rule for rule, _ in more)]
    return app


class ShortWay:
    """The same application, in which routes without parameters are found by their path at once.

    The framework would try all patterns, and send each request through what `StrictRoute` and the
    guard do themselves.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._answers = {
            (route.rule.method, route.path): route.app
            for route in app.routes
            if isinstance(route, StrictRoute) and "{" not in route.path
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        found = None
        if scope["type"] == "http":
            found = self._answers.get((scope["method"], scope["path"]))
        if found is None:
            await self._app(scope, receive, send)
        else:
            scope["app"], scope["path_params"] = self._app, {}
            await found(scope, receive, send)


def rules_of(app: FastAPI) -> list[Rule]:
    """The rule of each route.

    Raises:
        ConfigError: If a route has none, as nobody would know who may call it.
    """
    rules: list[Rule] = app.state.rules
    known = {(rule.method, rule.path) for rule in rules}
    for route in app.routes:
        path = getattr(route, "path", str(route))
        methods = set(getattr(route, "methods", None) or {"*"}) - {"HEAD"}
        if not {(method, path) for method in methods} <= known:
            raise ConfigError(f"The route {path} has no rule.")
    return rules


def _openapi_route(app: FastAPI, limits: Limits) -> StrictRoute:
    @cache
    def document() -> bytes:
        return orjson.dumps(describe(app, limits))

    async def get_openapi() -> Response:
        """This description."""
        return Response(document(), media_type="application/json")

    return StrictRoute(
        Rule(method="GET", path="/openapi.json", scope="public"), get_openapi, limits=limits,
        summary="The OpenAPI document", answers={200: OpenApi},
    )  # fmt: skip


async def _http_problem(request: Request, error: Exception) -> Response:
    """What the framework refuses: no such path, no such method."""
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    words = {404: "There is nothing at this path.", 405: "This path has no such method."}
    return problem_response(
        error.status_code, words.get(error.status_code, "The request was refused."), headers=headers
    )


def _methods(request: Request) -> list[str]:
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] != Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _failure(_request: Request, _error: Exception) -> Response:
    """Our own fault; what it was is in the log, not in the answer."""
    return problem_response(500, "Something went wrong; the log has it.")
