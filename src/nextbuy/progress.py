"""How long work tells somebody that it goes on. Library code reports; only the CLI draws."""

from typing import Protocol


class Progress(Protocol):
    """Receives the steps of long work."""

    def about(self, subject: str) -> None:
        """What the next pieces of work belong to, for example a model."""
        ...

    def start(self, name: str, total: int, done: int = 0) -> None:
        """A piece of work begins: `total` units, `done` of them already there (a resumed run)."""
        ...

    def advance(self, units: int, facts: dict[str, float]) -> None:
        """`units` more are done; `facts` are numbers to show, such as the loss."""
        ...

    def finish(self) -> None:
        """The piece of work is over, also when it ended early."""
        ...


class SilentProgress:
    """Says nothing."""

    def about(self, subject: str) -> None:
        """Say nothing."""

    def start(self, name: str, total: int, done: int = 0) -> None:
        """Say nothing."""

    def advance(self, units: int, facts: dict[str, float]) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""
