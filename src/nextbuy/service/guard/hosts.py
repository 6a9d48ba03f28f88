"""Which names the service answers to, and which pages a browser may send requests from.

A page elsewhere can make a browser send requests to 127.0.0.1, and a name elsewhere can be made to
point there. The first shows in `Origin` and `Sec-Fetch-Site`, the second in `Host`.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from nextbuy.errors import ConfigError
from nextbuy.service.guard.asgi import Headers

_AUTHORITY: Final = re.compile(
    r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}))(?::[0-9]{1,5})?"
)
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
_FOREIGN_SITES: Final = (b"cross-site", b"same-site")


@lru_cache(maxsize=1_024)
def is_loopback(address: str) -> bool:
    """Whether an address, or `localhost`, is this machine itself."""
    if address == "localhost":
        return True
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


class Hosts:
    """The names that may stand in `Host`.

    Loopback names and the bound address always may. Where all addresses are bound, any address may:
    what rebinds a name needs a name.

    Args:
        bound: The address that the server listens on.
        allowed: More names, without ports.

    Raises:
        ConfigError: If one of them is no host name.
    """

    def __init__(self, bound: str = "127.0.0.1", allowed: Iterable[str] = ()) -> None:
        names = {"localhost", "127.0.0.1", "[::1]"}
        for name in (*allowed, *(() if bound in _WILDCARDS else (bound,))):
            found = _name_of(f"[{name}]" if ":" in name and name[0] != "[" else name)
            if found is None or found != _bare(name):
                raise ConfigError(f"{name!r} is no host name; give it without scheme and port.")
            names.add(found)
        self._names = frozenset(names)
        self._is_any_address = bound in _WILDCARDS

    def allows(self, host: bytes) -> bool:
        """Whether the service answers to this value of `Host`."""
        name = _name_of(host.decode("latin-1"))
        if name is None:
            return False
        return name in self._names or (self._is_any_address and _is_address(name))


def is_foreign(headers: Headers, host: bytes) -> bool:
    """Whether a browser says that another origin than ours sends this request.

    Args:
        headers: Of the request.
        host: Its `Host`, which was found to be ours. The scheme is not compared: a proxy that ends
            TLS hides it.
    """
    for name, value in headers:
        if name == b"origin":
            _, _, authority = value.partition(b"://")
            if authority.lower() != host.lower():
                return True
        elif name == b"sec-fetch-site" and value in _FOREIGN_SITES:
            return True
    return False


def _name_of(authority: str) -> str | None:
    match = _AUTHORITY.fullmatch(authority.lower())
    return match["name"].rstrip(".") if match else None


def _bare(name: str) -> str:
    name = name.lower().rstrip(".")
    return f"[{name}]" if ":" in name and name[0] != "[" else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
