"""Security checks that run under `python -O`, where asserts do nothing: each raises by itself.

Prints what was checked; `python -O -m tests.service.optimised` is run by a test.
"""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from nextbuy.service.guard.keys import add_key
from tests.service.assembled import bearer, opened

GOOD = b'{"purchase": {"user_id": "a", "item_id": "b"}}'
REFUSED = {
    "S04 depth": (b"[" * 40 + b"]" * 40, 400),
    "S04 keys": (b"{" + b",".join(b'"%d":1' % n for n in range(1_001)) + b"}", 400),
    "S05 NaN": (b'{"purchase": {"user_id": "a", "item_id": "b", "price": NaN}}', 422),
    "S06 integer": (b'{"purchase": {"user_id": "a", "item_id": "b", "price": %d}}' % 2**63, 422),
    "S07 surrogate": (b'{"purchase": {"user_id": "\\ud800", "item_id": "b"}}', 422),
    "S08 NUL": (b'{"purchase": {"user_id": "\\u0000", "item_id": "b"}}', 422),
    "S09 UTF-16": (GOOD.decode().encode("utf-16"), 400),
    "S10 twice": (b'{"purchase": {"user_id": "a", "user_id": "b", "item_id": "b"}}', 422),
    "S11 unknown": (b'{"purchase": {"user_id": "a", "item_id": "b", "x": 1}}', 422),
    "S12 text": (b'{"purchase": {"user_id": "a", "item_id": "b", "price": "5"}}', 422),
    "S13 empty": (b"", 422),
}


class FailedError(Exception):
    """A check found something else than it should."""


def expect(name: str, found: object, wanted: object) -> None:
    """Raise unless both are equal."""
    if found != wanted:
        raise FailedError(f"{name}: {found} instead of {wanted}")
    print("held", name)


async def check(folder: Path, file: Path, keys: dict[str, str]) -> None:
    """Send what has to be refused, and what has not."""
    kind = {"Content-Type": "application/json"}
    async with opened(folder, keys=file) as client:

        async def status(method, path, who=None, raw=None, **headers):
            key = keys.get(who, who)
            told = await client.request(
                method, path, content=raw, headers={**bearer(key), **kind, **headers}
            )
            return told.status_code

        for name, (raw, wanted) in REFUSED.items():
            expect(name, await status("POST", "/v1/purchases", "write", raw), wanted)
        large = b'{"x": "' + b"a" * 2**20 + b'"}'
        expect("S01 size", await status("POST", "/v1/purchases", "write", large), 413)
        gzip = {"Content-Encoding": "gzip"}
        expect("S03 gzip", await status("POST", "/v1/purchases", "write", GOOD, **gzip), 415)
        for who, wanted in ((None, 401), ("nb_wrong", 401), ("read", 403), ("write", 200)):
            expect(f"S35 write by {who}", await status("POST", "/v1/purchases", who, GOOD), wanted)
        for who, wanted in ((None, 401), ("read", 403), ("write", 403), ("admin", 200)):
            expect(f"S35 admin by {who}", await status("DELETE", "/v1/users/a", who), wanted)
        expect("S38", await status("GET", "/v1/model", "read", Host="evil.example"), 421)
        evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        expect("S39", await status("POST", "/page/sign-in", None, b"key=x", **evil), 403)
        name = b'{"name": "../../etc"}'
        expect("S44", await status("POST", "/v1/model", "admin", name), 422)


def main() -> None:
    """Check in a folder that is gone afterwards."""
    if __debug__:
        raise FailedError("asserts are on: run it with -O")
    with suppress(FailedError):
        expect("a check that fails", 1, 2)
        raise SystemExit("a check that must fail did not")
    with tempfile.TemporaryDirectory() as place:
        folder, file = Path(place), Path(place) / "keys.json"
        keys = {scope: add_key(file, scope, [scope]) for scope in ("read", "write", "admin")}
        asyncio.run(check(folder, file, keys))


if __name__ == "__main__":
    main()
