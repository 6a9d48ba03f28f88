"""Numbers for Prometheus, in a registry of our own.

Labels are templates of routes, methods, statuses and the version of the model: all of them few. An
id, a path or a name that a client chose never is one, so the number of series is bounded.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from nextbuy.service.guard.rates import Slots
from nextbuy.service.guard.visit import Visit

_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Since the service started.

    Attributes:
        stored: Live purchases.
        predicted: Questions that were answered.
    """

    stored: int
    predicted: int


def _value(counter: Counter) -> int:
    return int(next(s.value for one in counter.collect() for s in one.samples))


class Metrics:
    """What the service counts; one for a process. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        if sys.platform == "linux":
            ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "nextbuy_requests",
            "Requests that ended; status 499 is a client that left first.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "nextbuy_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route", "method"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "nextbuy_refused",
            "What was refused before it was a request: broken or too large heads, too many "
            "connections.",
            ("status",),
            registry=self.registry,
        )
        self._in_flight = self._gauge("nextbuy_requests_in_flight", "Requests not yet answered.")
        self._queue = self._gauge("nextbuy_requests_queued", "Requests that wait for a slot.")
        self._stored = self._counter("nextbuy_purchases_stored", "Live purchases that were stored.")
        self._predictions = self._counter("nextbuy_predictions", "Questions that were answered.")
        self._store_errors = Counter(
            "nextbuy_store_errors",
            "Times that the store could not be used.",
            ("kind",),
            registry=self.registry,
        )
        self._beside = self._gauge(
            "nextbuy_model_process", "1 while the model's own process answers, 0 without one."
        )
        self._model = Gauge(
            "nextbuy_model_info",
            "1 for the version of the bundle that answers.",
            ("version",),
            registry=self.registry,
        )
        self._of_request: dict[tuple[str, str, int], Counter] = {}
        self._of_route: dict[tuple[str, str], Histogram] = {}

    def began(self, visit: Visit) -> None:  # noqa: ARG002 - as an observer is told
        """A request came in."""
        self._in_flight.inc()

    def ended(self, visit: Visit, seconds: float) -> None:
        """It is over, in whatever way."""
        self._in_flight.dec()
        route, method = visit.route, visit.known_method
        asked = (route, method, visit.status)
        counter = self._of_request.get(asked)
        if counter is None:
            counter = self._requests.labels(route, method, str(visit.status))
            self._of_request[asked] = counter
        counter.inc()
        histogram = self._of_route.get((route, method))
        if histogram is None:
            histogram = self._of_route[route, method] = self._seconds.labels(route, method)
        histogram.observe(seconds)

    def refused(self, status: int) -> None:
        """A connection was refused before the guard saw a request."""
        self._refused.labels(str(status)).inc()

    def watch(self, slots: Slots) -> None:
        """Show how many requests wait for a slot."""
        self._queue.set_function(lambda: slots.waiting)

    def watch_model(self, is_beside: Callable[[], bool]) -> None:
        """Show whether the model's own process can be asked."""
        self._beside.set_function(is_beside)

    def stored(self, count: int) -> None:
        """Purchases became durable."""
        self._stored.inc(count)

    def predicted(self, count: int) -> None:
        """Questions were answered."""
        self._predictions.inc(count)

    def store_failed(self, kind: Literal["unavailable", "unusable"]) -> None:
        """The store raised `StoreUnavailableError`, or another `StoreError`."""
        self._store_errors.labels(kind).inc()

    def model_is(self, version: str | None) -> None:
        """This version answers from now on; None if there is none."""
        self._model.clear()
        if version is not None:
            self._model.labels(version).set(1)

    def counts(self) -> "Counts":
        """The two that people are shown."""
        return Counts(stored=_value(self._stored), predicted=_value(self._predictions))

    def exposition(self) -> tuple[bytes, str]:
        """All numbers as text, and the type of that text; for the route `/metrics`."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)
