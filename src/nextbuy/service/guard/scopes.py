"""Who may call which route: a table that is looked up before the application is asked.

A route that is not in the table does not exist for clients, so that none is open by oversight.
Paths are written and matched as Starlette does it, in order, the first that fits.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Scope = Literal["public", "read", "write", "admin"]
"""`public` needs no key; a key has any of the others, and `admin` includes all."""

KEY_SCOPES: Final = ("read", "write", "admin")

_PARAMETER: Final = re.compile(r"{([a-zA-Z_][a-zA-Z0-9_]*)(:path)?}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one route asks of a request.

    Attributes:
        method: Upper case; `GET` includes `HEAD`.
        path: Template such as `/v1/users/{user_id}/history`; `{rest:path}` takes slashes, too. It
            is also the name of the route in metrics and logs.
        scope: What the key must have. Public routes are neither counted against a rate nor queued,
            so they must be cheap.
        is_bulk: Whether the body is streamed, up to `Limits.bulk_bytes` instead of `body_bytes`.
        has_deadline: Whether `Limits.handler_seconds` ends it; not for long downloads.
    """

    method: str
    path: str
    scope: Scope
    is_bulk: bool = False
    has_deadline: bool = True


class RouteTable:
    """All rules of a service, looked up by method and decoded path."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules: Sequence[Rule] = tuple(rules)
        self._exact = {
            rule.path: {r.method: r for r in reversed(self.rules) if r.path == rule.path}
            for rule in self.rules
            if "{" not in rule.path
        }
        self._patterns = [
            (_pattern(rule.path), rule.method, rule) for rule in self.rules if "{" in rule.path
        ]

    def find(self, method: str, path: str) -> Rule | None:
        """The rule for a request, None if there is no such route."""
        method = "GET" if method == "HEAD" else method
        exact = self._exact.get(path)
        if exact is not None and method in exact:
            return exact[method]
        for pattern, of_method, rule in self._patterns:
            if of_method == method and pattern.fullmatch(path):
                return rule
        return None

    def methods(self, path: str) -> list[str]:
        """Which methods a path knows, sorted; empty if the path is unknown."""
        found = set(self._exact.get(path, ()))
        found |= {method for pattern, method, _ in self._patterns if pattern.fullmatch(path)}
        return sorted(found | {"HEAD"} if "GET" in found else found)


def _pattern(path: str) -> re.Pattern[str]:
    text, end = "", 0
    for match in _PARAMETER.finditer(path):
        text += re.escape(path[end : match.start()]) + (".*" if match[2] else "[^/]+")
        end = match.end()
    return re.compile(text + re.escape(path[end:]), re.DOTALL)
