"""Which code a process runs, so that different code does not work on one result."""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import nextbuy
from nextbuy.errors import JoinError

_LIBRARIES: Final = ("torch", "numpy", "polars", "ray")


def code_facts() -> dict[str, str]:
    """A hash of the source of nextbuy, and the versions of what it computes with."""
    root = Path(nextbuy.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return {
        "code": digest.hexdigest()[:16],
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def refuse_other_code(name: str, found: dict[str, str], wanted: dict[str, str]) -> None:
    """Refuse a worker that runs other code.

    Raises:
        JoinError: Naming the worker, what differs, and what to do.
    """
    if said := differences(found, wanted):
        raise JoinError(
            f"{name} has {said}. Install the same nextbuy on all machines of the cluster."
        )


def differences(found: dict[str, str], wanted: dict[str, str]) -> str:
    """What differs, in words; empty if nothing does."""
    return ", ".join(
        f"{name} {found.get(name)!r} instead of {wanted[name]!r}"
        for name in wanted
        if found.get(name) != wanted[name]
    )
