"""What a preparation has finished: folders that appear whole, so that a killed one goes on.

A piece of work is a folder that is written under another name, synced and renamed. Whatever is
there under its own name is whole; whatever is not is done again, with the same bytes.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from filelock import FileLock, Timeout

from nextbuy.errors import ResumeError, RunLockedError
from nextbuy.storage import StorageError, failpoint, read_json, sync, write_json

WORK: Final = "work"
"""Folder inside the prepared one that holds what is not finished."""

_PLAN: Final = "plan.json"
_UNFINISHED: Final = "tmp-"


class Pieces:
    """Numbered pieces of one kind of work, each a folder; 0, 1, ... up to the first that lacks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, number: int) -> Path:
        """Where a piece lies."""
        return self.folder / f"{number:06d}"

    def has(self, number: int) -> bool:
        """Whether a piece is finished."""
        return self.path(number).is_dir()

    def count(self) -> int:
        """How many are finished from the first on, without a gap."""
        number = 0
        while self.has(number):
            number += 1
        return number

    def drop_from(self, number: int) -> None:
        """Remove this piece and those after it, of which a killed run may have finished some."""
        for path in self.folder.iterdir():
            if path.name >= self.path(number).name:
                shutil.rmtree(path)

    def put(self, number: int, write: Callable[[Path], None]) -> None:
        """Make a piece appear, whole and on disk. Whoever makes it makes the same bytes.

        Args:
            number: Of the piece.
            write: Writes files into the folder that it is given.

        Raises:
            StorageError: If the disk refuses.
        """
        target = self.path(number)
        unfinished = f"{_UNFINISHED}{number:06d}-"
        temporary = self.folder / f"{unfinished}{uuid4().hex[:8]}"
        try:
            for path in self.folder.glob(f"{unfinished}*"):
                shutil.rmtree(path, ignore_errors=True)
            temporary.mkdir()
            write(temporary)
            for file in temporary.iterdir():
                sync(file)
            sync(temporary)
            failpoint(f"before_{self.folder.name}")
            if self.has(number):  # another process, which was taken for dead, has done it
                shutil.rmtree(temporary)
                return
            temporary.rename(target)
            sync(self.folder)
            failpoint(f"after_{self.folder.name}")
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StorageError(
                f"{target} could not be written: {error.strerror or error}. The same command goes "
                "on from what is finished."
            ) from error


def agree(work: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of the work that was begun in this folder; this one where none was.

    Args:
        work: Folder of the unfinished work.
        plan: `asked`, which must agree, and what else the first run decides for those after it.

    Raises:
        ResumeError: If something else was begun here; the first difference is named.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / _PLAN
    if not path.exists():
        temporary = work / f"{_UNFINISHED}{_PLAN}"
        write_json(temporary, dict(plan))
        temporary.rename(path)
        sync(work)
        return dict(plan)
    begun: dict[str, Any] = read_json(path)
    asked, found = plan["asked"], begun["asked"]
    for name in sorted({*asked, *found}):
        if asked.get(name) != found.get(name):
            raise ResumeError(
                f"{work.parent} holds a preparation that was begun with {name} = "
                f"{found.get(name)!r}; now it is {asked.get(name)!r}. Give the same command, "
                "or another --out, or remove the folder."
            )
    return begun


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the folder against a second preparation.

    Raises:
        RunLockedError: If one is at work in it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / "lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout as error:
        raise RunLockedError(f"Another process prepares {out}. Wait for it, or stop it.") from error
