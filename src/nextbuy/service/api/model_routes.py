"""The model card, another version of the bundle, and whether the service is alive and ready."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import Response

from nextbuy.errors import BundleError, StoreError
from nextbuy.service.api.answers import Alive, ModelCard, Ready, Swapped
from nextbuy.service.api.bodies import SwapBody
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.api.routing import StrictRoute, json_response
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.problems import ProblemError

_METRICS: Final[dict[str, Any]] = {
    "description": "All counters",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


class ModelRoutes:
    """What answers, and whether it can."""

    def __init__(self, parts: ServiceParts, limits: Limits, *, ready_seconds: float) -> None:
        self._parts, self._limits = parts, limits
        self._readiness = Readiness(parts, ready_seconds)

    def routes(self) -> list[StrictRoute]:
        """The routes, to be put into an application."""
        limits = self._limits
        return [
            StrictRoute(
                Rule(method="GET", path="/v1/model", scope="read"), self.get_model,
                limits=limits, summary="The model card", answers={200: ModelCard},
            ),
            StrictRoute(
                Rule(method="POST", path="/v1/model", scope="admin", has_deadline=False),
                self.swap_model, limits=limits, answers={200: Swapped},
                summary="Let another version of the bundle answer",
            ),
            StrictRoute(
                Rule(method="GET", path="/metrics", scope="read"), self.get_metrics,
                limits=limits, summary="Counters for Prometheus", answers={200: _METRICS},
            ),
            StrictRoute(
                Rule(method="GET", path="/health/live", scope="public"), self.get_live,
                limits=limits, summary="Whether the process answers", answers={200: Alive},
            ),
            StrictRoute(
                Rule(method="GET", path="/health/ready", scope="public"), self.get_ready,
                limits=limits, answers={200: Ready},
                summary="Whether purchases can be stored and questions answered",
            ),
        ]  # fmt: skip

    def get_model(self) -> Response:
        """Version, models, scores and sizes."""
        return json_response(self._parts.live.facts())

    def swap_model(self, body: SwapBody) -> Response:
        """Load, verify and try it; if anything is wrong the old version goes on."""
        try:
            return json_response({"version": self._parts.live.swap(body.name)})
        except BundleError as error:
            raise ProblemError(409, f"The version that answers stays. {error}") from error

    def get_metrics(self) -> Response:
        """In the text format 0.0.4."""
        metrics = self._parts.metrics
        metrics.model_is(self._parts.live.version)
        text, kind = metrics.exposition()
        return Response(text, media_type=kind)

    async def get_live(self) -> Response:
        """Says nothing of store and model."""
        return json_response({"status": "alive"})

    def get_ready(self) -> Response:
        """Tries the store."""
        reason = self._readiness.reason()
        if reason is not None:
            raise ProblemError(503, reason, headers={"Retry-After": "1"})
        return json_response({"status": "ready", "version": self._parts.live.version})


class Readiness:
    """Why the service is not ready. Anybody may ask, so the store is tried only now and then.

    Args:
        seconds: How long one try holds.
    """

    def __init__(
        self, parts: ServiceParts, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts, self._seconds, self._clock = parts, seconds, clock
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._is_store_well = False

    def reason(self) -> str | None:
        """None if it is ready."""
        if self._parts.live.version is None:
            return "No bundle is loaded."
        with self._lock:
            if self._clock() >= self._until:
                self._is_store_well = self._try()
                self._until = self._clock() + self._seconds
        return None if self._is_store_well else "The store of purchases cannot be used."

    def _try(self) -> bool:
        try:
            self._parts.store.check()
        except StoreError:
            return False
        return True
