"""The whole service from a folder and settings: store, live model, routes, guard."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from nextbuy.errors import ConfigError
from nextbuy.service.api.parts import ServiceParts
from nextbuy.service.application import ShortWay, create_app, rules_of
from nextbuy.service.config import ServiceSettings
from nextbuy.service.guard.asgi import Application
from nextbuy.service.guard.guard import Guard
from nextbuy.service.guard.hosts import Hosts
from nextbuy.service.guard.keys import KeyRing
from nextbuy.service.guard.logs import RequestLog
from nextbuy.service.guard.metrics import Metrics
from nextbuy.service.guard.scopes import RouteTable
from nextbuy.service.live.bundles import LiveBundles, LiveOptions, now
from nextbuy.service.observing import Observing
from nextbuy.service.page.door import Door
from nextbuy.service.page.pages import Pages
from nextbuy.service.page.parts import Counters, PageParts
from nextbuy.service.page.routes import page_routes
from nextbuy.service.page.sessions import Sessions
from nextbuy.service.store.group_commit import Committer
from nextbuy.service.store.opening import open_store
from nextbuy.service.store.protocol import StoredPurchase
from nextbuy.threads import num_cores, use_one_core_each

STORE_FILE: Final = "purchases.sqlite"
_EXAMPLES: Final = 8
_SWITCH_SECONDS: Final = 0.0005


def share_the_processor() -> None:
    """Settings of this process for an event loop and a model that compute at the same time.

    Each operation of torch uses one core, unless the environment says otherwise. Threads that share
    an operation spin while they wait for each other, and where the event loop has one of their
    cores they wait for that as well: two on two cores used twice the processor of one and were no
    faster. The interpreter changes threads more often than it does by itself: the model gives its
    lock away at each operation, and would get it back from a busy loop only after 5 ms.
    """
    use_one_core_each()
    sys.setswitchinterval(_SWITCH_SECONDS)


def open_service(
    directory: Path,
    settings: ServiceSettings,
    keys: KeyRing,
    *,
    clock: Callable[[], int] = now,
) -> Application:
    """An ASGI application, ready to be served; what it opened is closed when its lifespan ends.

    Args:
        directory: Folder that `train --out` wrote, or will write.
        settings: Of the service.
        keys: Who may come in.
        clock: UTC microseconds.

    Raises:
        ConfigError: If the folder is not there, or a setting cannot be followed.
        BundleError: If the newest version of the bundle is damaged.
        StoreError: If the store cannot be used.
    """
    hosts = Hosts(settings.host, settings.allowed_hosts)
    parts, live, observing = open_parts(directory, settings, clock=clock)
    page = _page_parts(parts, live, observing, keys) if settings.page else None
    pages = Pages()
    app = create_app(parts, settings, more=page_routes(page, pages) if page else ())
    guard = Guard(
        ShortWay(app),
        rules=RouteTable(rules_of(app)),
        keys=keys,
        limits=settings.limits,
        hosts=hosts,
        observers=(parts.metrics, RequestLog()),
    )
    parts.metrics.watch(guard.slots)
    if page is None:
        return guard
    return Door(guard, sessions=page.sessions, pages=pages, version=lambda: live.version)


def open_parts(
    directory: Path, settings: ServiceSettings, *, clock: Callable[[], int] = now
) -> tuple[ServiceParts, LiveBundles, Observing]:
    """Store, committer and live model, joined: what is stored is known to the next answer, and a
    share of the answers is compared with what is bought.

    Raises:
        ConfigError: If the folder is not there.
        BundleError: If the newest version of the bundle is damaged.
        StoreError: If the store cannot be used.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no folder. Name the one that 'nextbuy train' wrote.")
    with ExitStack() as opened:
        store = open_store(settings.store or str(directory / STORE_FILE))
        opened.callback(store.close)
        options = LiveOptions(beside=_has_model_process(settings))
        live = LiveBundles.open(directory, store, clock=clock, options=options)
        opened.callback(live.close)
        metrics = Metrics()
        metrics.watch_model(lambda: live.is_beside)

        def on_stored(purchases: list[StoredPurchase]) -> None:
            live.bought(purchases)
            metrics.stored(len(purchases))

        committer = Committer(store, on_stored=on_stored)
        opened.callback(committer.close)
        observing = Observing(
            store, live, clock, share=settings.served_share, seconds=settings.watch_seconds,
            days=settings.served_days,
        )  # fmt: skip
        opened.pop_all()
    parts = ServiceParts(
        store=store, committer=committer, live=live, now=clock, metrics=metrics,
        on_answered=observing.answered, on_forget=observing.forget,
        on_close=(observing.close, live.close),
    )  # fmt: skip
    return parts, live, observing


def _has_model_process(settings: ServiceSettings) -> bool:
    told = settings.model_process
    return num_cores() > 1 if told is None else told


def _page_parts(
    parts: ServiceParts, live: LiveBundles, observing: Observing, keys: KeyRing
) -> PageParts:
    """What the page is shown of the same service."""

    def counters() -> Counters:
        counts = parts.metrics.counts()
        return Counters(
            purchases=counts.stored, predictions=counts.predicted,
            sequence=parts.store.last_sequence(),
        )  # fmt: skip

    def find_key(authorization: bytes) -> str | None:
        key = keys.find(authorization)
        return None if key is None else key.name

    def examples() -> Sequence[str]:
        loaded = live.loaded
        if loaded is None:
            return ()
        return list(loaded.predictor.histories.user_ids.head(_EXAMPLES))

    return PageParts(
        live=live,
        catalog=lambda: live.loaded.predictor.catalog if live.loaded else None,
        counters=counters,
        now=parts.now,
        sessions=Sessions(),
        find_key=None if keys.is_open else find_key,
        examples=examples,
        live_quality=observing.latest,
    )
