"""Style sheet, script and icon: fixed names, read once, with ETags."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

_TYPES: Final = {
    "style.css": "text/css; charset=utf-8",
    "script.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent.

    Attributes:
        name: Of the file.
        content: Its bytes.
        media_type: For the header.
        digest: Of the content; in the address that pages use, so that a new version is fetched.
    """

    name: str
    content: bytes
    media_type: str
    digest: str

    def response(self, request: Request) -> Response:
        """The file; 304 to who has it. Kept a year under the address with its digest, and asked
        about again under any other."""
        is_named = request.query_params.get("v") == self.digest
        headers = {
            "ETag": f'"{self.digest}"',
            "Cache-Control": "public, max-age=31536000, immutable" if is_named else "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        known = request.headers.get("if-none-match", "")
        if f'"{self.digest}"' in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def load_assets() -> dict[str, Asset]:
    """All files, by name."""
    folder = files("nextbuy.service.page") / "static"
    found = {}
    for name, media_type in _TYPES.items():
        content = (folder / name).read_bytes()
        found[name] = Asset(name, content, media_type, hashlib.sha256(content).hexdigest()[:16])
    return found
