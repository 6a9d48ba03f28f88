"""All that the head of a request decides: host, route, origin, key, rate; cheapest first."""

import secrets
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from nextbuy.service.config import Limits
from nextbuy.service.guard.asgi import Connection, only
from nextbuy.service.guard.hosts import Hosts, is_foreign, is_loopback
from nextbuy.service.guard.keys import KeyRing
from nextbuy.service.guard.rates import Rates
from nextbuy.service.guard.refusals import (
    BAD_TEXT,
    FORBIDDEN,
    FOREIGN,
    METHOD_NOT_ALLOWED,
    NO_HOST,
    NO_TOKEN,
    NOT_FOUND,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    WRONG_HOST,
    Refusal,
    retry_after,
)
from nextbuy.service.guard.scopes import RouteTable, Rule
from nextbuy.service.guard.visit import Visit

TOKEN_HEADER: Final = "x-nextbuy-token"  # noqa: S105 - the name of a header

_SAFE: Final = frozenset({"GET", "HEAD"})
_PROXIED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
_OF_BROWSERS: Final = frozenset({b"origin", b"sec-fetch-site", b"cookie"})


class Entrance:
    """Who may come in, and to what.

    Args:
        rules: The routes; others do not exist for clients.
        keys: Who may come in.
        limits: How often.
        hosts: The names that are answered to.
    """

    def __init__(self, rules: RouteTable, keys: KeyRing, limits: Limits, hosts: Hosts) -> None:
        self.page_token = secrets.token_urlsafe(32)
        self._rules = rules
        self._keys = keys
        self._hosts = hosts
        self._rates = Rates(limits.rate, limits.burst)

    def judge(self, scope: Connection, visit: Visit) -> Refusal | None:
        """Why a request is refused, or None; the visit learns its rule and its key."""
        host = only(scope["headers"], b"host")
        if host is None:
            return NO_HOST
        if not self._hosts.allows(host):
            return WRONG_HOST
        refusal = BAD_TEXT if not _is_clean(scope) else self._find_rule(scope, visit)
        if refusal is not None or visit.rule is None:
            return refusal
        is_safe, rule = visit.method in _SAFE, visit.rule
        if not (is_safe and rule.scope == "public") and is_foreign(scope["headers"], host):
            return FOREIGN
        return None if rule.scope == "public" else self._admit(scope, visit, rule, is_safe=is_safe)

    def _find_rule(self, scope: Connection, visit: Visit) -> Refusal | None:
        visit.rule = self._rules.find(visit.method, scope["path"])
        if visit.rule is not None:
            return None
        known = ", ".join(self._rules.methods(scope["path"]))
        return METHOD_NOT_ALLOWED.with_headers((b"allow", known.encode())) if known else NOT_FOUND

    def _admit(
        self, scope: Connection, visit: Visit, rule: Rule, *, is_safe: bool
    ) -> Refusal | None:
        if self._keys.is_open:
            refusal = self._admit_neighbour(scope, is_safe=is_safe)
        else:
            refusal = self._admit_key(scope, visit, rule)
        if refusal is not None:
            return refusal
        wait = self._rates.wait(visit.key.name if visit.key else "")
        return TOO_MANY_REQUESTS.with_headers(retry_after(wait)) if wait else None

    def _admit_neighbour(self, scope: Connection, *, is_safe: bool) -> Refusal | None:
        """Without keys: programs of this machine, and pages that are our own."""
        client, headers = scope.get("client"), scope["headers"]
        if client is None or not is_loopback(client[0]):
            return UNAUTHORIZED
        if any(name in _PROXIED for name, _ in headers):
            return UNAUTHORIZED  # a proxy on this machine brings clients from elsewhere
        is_browser = any(name in _OF_BROWSERS for name, _ in headers)
        return NO_TOKEN if is_browser and not is_safe and not self._has_token(headers) else None

    def _admit_key(self, scope: Connection, visit: Visit, rule: Rule) -> Refusal | None:
        key = visit.key = self._keys.find(only(scope["headers"], b"authorization"))
        if key is None:
            return UNAUTHORIZED
        return None if key.may(rule.scope) else FORBIDDEN

    def _has_token(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        token = only(headers, TOKEN_HEADER.encode())
        return token is not None and secrets.compare_digest(token, self.page_token.encode())


def _is_clean(scope: Connection) -> bool:
    """Whether path and query are UTF-8 without NUL; the server puts U+FFFD where they are not."""
    path, query = scope["path"], scope["query_string"]
    if "\0" in path or b"\0" in query:
        return False
    parts = [query] if b"%" in query else []
    if "\ufffd" in path:
        parts.append(scope.get("raw_path") or b"\xff")
    try:
        return not any("\0" in unquote_to_bytes(part).decode() for part in parts)
    except UnicodeDecodeError:
        return False
