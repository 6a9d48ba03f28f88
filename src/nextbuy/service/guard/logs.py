"""One line of JSON for each event: nothing that a client sends can start a line or colour it.

A line of a request has its id, method, template of the route, status, milliseconds and the name of
the key. Headers, paths, queries and bodies are never logged, and of an error only its type and
where it came from: its message may repeat what was sent.
"""

import json
import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from nextbuy.errors import DamagedError, ServiceError
from nextbuy.service.guard.visit import Visit

_log = logging.getLogger("nextbuy.service.requests")

_MOST_CHARACTERS: Final = 8_192
_MOST_FRAMES: Final = 20


class RequestLog:
    """Writes a line for each request that ended, at level INFO, or WARNING from status 500 on."""

    def began(self, visit: Visit) -> None:
        """Nothing is written yet."""

    def ended(self, visit: Visit, seconds: float) -> None:
        """Write the line."""
        level = logging.WARNING if visit.status >= 500 else logging.INFO
        if not _log.isEnabledFor(level):
            return
        told = {
            "request_id": visit.id,
            "method": visit.known_method,
            "route": visit.route,
            "status": visit.status,
            "ms": round(seconds * 1e3, 3),
            "key": visit.key.name if visit.key else None,
        }
        # A record of our own: `log` would look up the caller's line, which costs more.
        record = logging.LogRecord(_log.name, level, "", 0, "request", None, None)
        record.told = told
        _log.handle(record)


class JsonLines(logging.Formatter):
    """A record as one line of ASCII JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MOST_CHARACTERS],
        }
        told = getattr(record, "told", None)
        if isinstance(told, dict):
            line |= told
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = story_of(record.exc_info[1])
        try:
            text = orjson.dumps(line).decode("ascii")
        except (orjson.JSONEncodeError, UnicodeDecodeError):  # half a character, or another letter
            text = json.dumps(line, ensure_ascii=True)
        # DEL is the one control character that JSON leaves as it is.
        return text.replace("\x7f", "\\u007f")


def story_of(error: BaseException) -> str:
    """The type of an error and the places it came through, innermost last, without its message.

    Messages of our own errors about the service and its files are kept: they name no client's data.
    """
    told = type(error).__name__
    if isinstance(error, ServiceError | DamagedError):
        told += f": {error}"
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    places = " > ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames)
    return f"{told} at {places}"


def write_json_lines(level: int, stream: TextIO) -> None:
    """Let everything that this process logs go to a stream as JSON, and to nothing else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))
