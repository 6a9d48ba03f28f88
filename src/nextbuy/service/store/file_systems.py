"""Which kind of file system a path lies on: locks and shared memory fail on those of networks."""

import re
from pathlib import Path
from typing import Final

from nextbuy.errors import StoreError

_MOUNTS: Final = Path("/proc/self/mounts")
_NETWORK: Final = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph", "fuse.gcsfuse",
        "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs",
        "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
    }
)  # fmt: skip
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
"""The kernel writes a space in the name of a place as \\040."""


def refuse_network(path: Path, mounts: str | None = None) -> None:
    """Return if a path is on a file system of this machine, or that cannot be told.

    Args:
        path: It need not be there.
        mounts: As Linux lists them in /proc/self/mounts; None reads that.

    Raises:
        StoreError: If it is on a file system that other hosts can write to.
    """
    if mounts is None:
        if not _MOUNTS.exists():
            return
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    place, kind = _mount_of(path.resolve(), mounts)
    if kind in _NETWORK:
        raise StoreError(
            f"{path} lies on {place}, a file system of kind {kind}, which several hosts may write "
            "to; SQLite loses data there. Put the store on a local disk, or use postgresql://."
        )


def _mount_of(path: Path, mounts: str) -> tuple[str, str]:
    """Where the file system of a path is mounted, and its kind; of equal places the last counts."""
    found = ("/", "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[1])
        if path.is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, fields[2])
    return found
