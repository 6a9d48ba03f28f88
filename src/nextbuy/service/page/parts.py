"""What the page works with: built elsewhere, handed in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nextbuy.data.catalog import Catalog
from nextbuy.service.live.protocol import LiveModel
from nextbuy.service.page.sessions import Sessions
from nextbuy.service.watching.quality import LiveQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What has come in and gone out; None where it is not counted.

    Attributes:
        purchases: Stored so far.
        predictions: Served since the service started.
        sequence: Of the newest purchase.
    """

    purchases: int | None
    predictions: int | None
    sequence: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Who a session belongs to.

    Attributes:
        name: Of the key; shown.
        authorization: The header that the key stands for, kept in the memory of the server only.
            It is judged anew at each request, so that a key that was removed opens nothing.
    """

    name: str
    authorization: bytes = field(repr=False)


def _nobody() -> Sequence[str]:
    return ()


def _unknown() -> LiveQuality | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageParts:
    """What the page is made of. Callables may block; they are called in a thread.

    Attributes:
        live: Answers.
        catalog: Of the bundle that answers, None if there is none.
        counters: May raise `StoreError`.
        now: UTC microseconds.
        sessions: Who is signed in, where keys are in use.
        find_key: The name of the key in an `Authorization` header, None if it is none of ours. None
            where no keys are in use: then nobody signs in.
        examples: Ids of some users, for the first page.
        live_quality: What was served beside what was bought, such as `Watcher.latest`; None while
            it is not known.
    """

    live: LiveModel
    catalog: Callable[[], Catalog | None]
    counters: Callable[[], Counters]
    now: Callable[[], int]
    sessions: Sessions[SignedIn]
    find_key: Callable[[bytes], str | None] | None = None
    examples: Callable[[], Sequence[str]] = _nobody
    live_quality: Callable[[], LiveQuality | None] = _unknown
