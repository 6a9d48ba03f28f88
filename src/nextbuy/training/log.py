"""The training log: one JSON object a line, the same bytes whether or not a run was killed.

Nothing in it depends on the clock. Durations are reported through `Progress` instead.
"""

import json
import logging
import os
from io import FileIO
from pathlib import Path

logger = logging.getLogger(__name__)


class TrainingLog:
    """Appends lines; can be cut back to where a checkpoint was taken."""

    def __init__(self, path: Path | None, offset: int = 0) -> None:
        """Open the log and forget what lies behind `offset`; no path keeps no log."""
        self._file: FileIO | None = None
        self._failed = False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab", buffering=0)
            if path.is_file():
                file.truncate(offset)
            self._file = file

    def write(self, **facts: str | int | float) -> None:
        """Append one line. A full disk costs lines, not the training: it is said once."""
        if self._file is None or self._failed:
            return
        try:
            self._file.write((json.dumps(facts) + "\n").encode())
        except OSError as error:
            self._failed = True
            logger.warning("The training log cannot be written (%s); training goes on.", error)

    def offset(self) -> int:
        """Bytes written so far, safely on disk."""
        if self._file is None:
            return 0
        if not self._failed:
            os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_log(path: Path) -> list[dict[str, str | int | float]]:
    """All whole lines of a training log."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
