"""A disk below SQLite that loses power, fails or is full at a chosen operation."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import apsw

SECTOR = 512


@dataclass
class Platter:
    """One file: what is safe, and what was written since."""

    safe: bytes = b""
    since: list = field(default_factory=list)  # (offset, bytes), or (length, None): cut


class FaultyDisk(apsw.VFS):
    """Counts what is written, cut, synced and deleted; at `at` it does what `fault` says.

    `power`: that operation and all later ones fail, and `disk_after_power_loss` says what is left.
    `error` or `full`: operations from `at` on fail until `mend` is called; `once`: only that one.
    """

    def __init__(self, name: str):
        self.name, self.at, self.fault, self.operations = name, None, None, 0
        self.platters: dict[str, Platter] = {}
        super().__init__(name, "")

    def mend(self):
        self.at = None

    def count(self):
        self.operations += 1
        if self.at is None or self.operations < self.at:
            return
        if self.fault == "once" and self.operations > self.at:
            return
        raise (
            apsw.FullError("no space") if self.fault == "full" else apsw.IOError("the disk failed")
        )

    def xOpen(self, name, flags):
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return FaultyFile(self, path, name, flags)

    def excepthook(self, kind, error, trace):
        """SQLite goes on without some of what failed, such as cleaning up; that is no surprise."""
        return True

    def xDelete(self, name, sync):
        self.count()
        self.platters.pop(name, None)
        super().xDelete(name, sync)

    def disk_after_power_loss(self, folder: Path, seed: int | None) -> None:
        """Files as they may lie there: without what was not synced, or with any part of it torn."""
        chance = random.Random(seed)
        for name, platter in self.platters.items():
            content = bytearray(platter.safe)
            for place, data in platter.since if seed is not None else []:
                fate = chance.random()
                if fate < 1 / 3:
                    continue
                if data is None:
                    del content[place:]
                    continue
                torn = data if fate < 2 / 3 else data[: SECTOR * chance.randrange(9)]
                content.extend(bytes(max(0, place - len(content))))
                content[place : place + len(torn)] = torn
            (folder / Path(name).name).write_bytes(content)


class FaultyFile(apsw.VFSFile):
    def __init__(self, disk, path, name, flags):
        super().__init__("", name, flags)
        self.disk, self.path = disk, path
        if path not in disk.platters:
            before = Path(path).read_bytes() if Path(path).exists() else b""
            disk.platters[path] = Platter(before)

    def excepthook(self, kind, error, trace):
        return True

    def _platter(self):
        return self.disk.platters.setdefault(self.path, Platter())

    def xWrite(self, data, offset):
        if self.disk.fault == "power":
            self._platter().since.append((offset, bytes(data)))
        self.disk.count()
        super().xWrite(data, offset)

    def xTruncate(self, size):
        if self.disk.fault == "power":
            self._platter().since.append((size, None))
        self.disk.count()
        super().xTruncate(size)

    def xSync(self, flags):
        self.disk.count()
        if self.disk.fault == "power":
            self._platter().safe = Path(self.path).read_bytes()
            self._platter().since.clear()
