"""Who is signed in on the page: random session ids in memory, bounded in number and in time.

The browser holds a cookie with a random id, never the key that was typed. What the key stands for
(`Identity`: its name, its scopes) is whatever the lookup of keys gives, and is kept beside the id.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final, Generic, TypeVar

COOKIE: Final = "nextbuy_session"
TOKEN_HEADER: Final = "x-nextbuy-token"  # noqa: S105 - the name of a header

Identity = TypeVar("Identity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Generic[Identity]):
    """One sign-in.

    Attributes:
        identity: What the lookup of keys gave.
        csrf_token: Requests that change something must send it, as a header or a form field.
        opened: By the clock of the sessions, seconds.
        used: When it was last found.
    """

    identity: Identity
    csrf_token: str
    opened: float
    used: float


class Sessions(Generic[Identity]):
    """Open sessions; methods may be called from any thread.

    Args:
        most: Sessions at a time; one more closes the one that was used longest ago.
        idle_seconds: A session that is not used so long is closed.
        life_seconds: And so is one that is older than this, however busy.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        most: int = 1_024,
        idle_seconds: float = 3_600.0,
        life_seconds: float = 12 * 3_600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._idle, self._life = idle_seconds, life_seconds
        self._clock = clock
        self._lock = Lock()
        self._open: OrderedDict[bytes, Session[Identity]] = OrderedDict()  # longest unused first

    def open(self, identity: Identity) -> str:
        """A new session; gives its id, for the cookie."""
        session_id, now = secrets.token_urlsafe(32), self._clock()
        session = Session(
            identity=identity, csrf_token=secrets.token_urlsafe(32), opened=now, used=now
        )
        with self._lock:
            while len(self._open) >= self._most:
                self._open.popitem(last=False)
            self._open[_digest(session_id)] = session
        return session_id

    def find(self, session_id: str | None) -> Session[Identity] | None:
        """The session of a cookie; None if there is none, or it is too old."""
        if not session_id:
            return None
        digest, now = _digest(session_id), self._clock()
        with self._lock:
            found = self._open.pop(digest, None)
            if found is None or now - found.used > self._idle or now - found.opened > self._life:
                return None
            found = Session(
                identity=found.identity, csrf_token=found.csrf_token, opened=found.opened, used=now
            )
            self._open[digest] = found
            return found

    def close(self, session_id: str | None) -> None:
        """Sign out; nothing if there is no such session."""
        with self._lock:
            self._open.pop(_digest(session_id or ""), None)

    def __len__(self) -> int:
        return len(self._open)


def is_token(session: Session[Identity], told: str | None) -> bool:
    """Whether a request told the session's CSRF token; compared in constant time."""
    return secrets.compare_digest(session.csrf_token.encode(), (told or "").encode())


def _digest(session_id: str) -> bytes:
    """So that looking up takes no time that depends on how much of an id was guessed."""
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).digest()
