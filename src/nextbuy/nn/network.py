"""What a network is asked and what it answers, whatever it is made of.

Legend: B sequences, L positions, M states that are asked, R hidden size, V items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextbuy.nn.placing import copied
from nextbuy.nn.repeat_head import OwnTensors, Repeats

Weights = dict[str, NDArray[np.float32]]

_COPIED: Final = 2**16
"""Rows of a table that are copied at a time, so that a large one is not held once more."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sequences:
    """Purchases as a network reads them; position l sees what lies before purchase l.

    Attributes:
        items: Index of the purchase before each position, [B, L]; 0 where there is none.
        marks: 1 where the position opens a new basket, [B, L].
        states: Places in the flattened grid [B * L] of the states that are asked, [M].
        gaps: Bucket of the time between the two purchases before each position, [B, L]; None
            where time is only an order.
        days: From the last purchase to the question, [M]; `nan` where nothing was bought. None
            where time is only an order.
        own: Own items of the states; None for networks without a repeat head.
    """

    items: Tensor
    marks: Tensor
    states: Tensor
    gaps: Tensor | None = None
    days: Tensor | None = None
    own: OwnTensors | None = None

    def to(self, device: torch.device) -> "Sequences":
        """The same on a device."""
        there = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: t.to(device) for n, t in there.items() if t is not None})


class NamedWeights(nn.Module):
    """A module whose weights go in and out as NumPy arrays by name."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by the names of `weight_shapes`."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def weights(self) -> Weights:
        """A copy of the weights as NumPy arrays."""
        return {n: copied(p) for n, p in self.trained_parameters().items()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Take over weights with exactly the names and shapes of `weight_shapes`."""
        for name, parameter in self.trained_parameters().items():
            whole = weights[name]
            for start in range(0, len(whole), _COPIED):  # arrays that must not be written to, too
                rows = slice(start, start + _COPIED)
                parameter[rows].copy_(torch.from_numpy(np.array(whole[rows])))


class CatalogNetwork(NamedWeights):
    """What the networks over a catalog have in common: no repeat head unless they say so.

    Their buffers, if they have any, have a column an item, padding included.
    """

    def item_tables(self) -> dict[str, int]:
        """Parameters with a row an item: by name, the item of the first row, 0 being padding."""
        raise NotImplementedError

    @property
    def has_repeats(self) -> bool:
        """Never; see `Network.has_repeats`."""
        return False

    def wait_classes(self, days_M: Tensor) -> Tensor:
        """One class: the moment of a question does not count; see `Scorer.wait_classes`."""
        return torch.zeros_like(days_M).long()

    def repeats(self, states_MR: Tensor, own: OwnTensors) -> Repeats | None:  # noqa: ARG002
        """There is no repeat head."""
        return None


class Scorer(Protocol):
    """Turns sequences into states, and states into scores by one row of weights an item."""

    @property
    def device(self) -> torch.device:
        """Where the weights are; what a network is asked must be there too."""
        ...

    @property
    def has_repeats(self) -> bool:
        """Whether there is a repeat head, which needs own items."""
        ...

    def states(self, asked: Sequences, dropout: torch.Generator | None) -> Tensor:
        """Hidden states that are asked, [M, R]; without a generator there is no dropout."""
        ...

    def wait_classes(self, days_M: Tensor) -> Tensor:
        """A number for the days from the last purchase to the question, [M]: two questions about
        one history that have the same have the same state."""
        ...

    def repeats(self, states_MR: Tensor, own: OwnTensors) -> Repeats | None:
        """What of the own items is bought again; None for networks without a repeat head."""
        ...

    def output(self) -> tuple[Tensor, Tensor]:
        """Rows of weights [V, R] and biases [V] of the items 1..V."""
        ...


class Network(Scorer, Protocol):
    """What can be asked, and trained, too."""

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        ...

    def weights(self) -> Weights:
        """A copy of the weights as NumPy arrays."""
        ...

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Take over weights with exactly the names and shapes of `trained_parameters`."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move to a device."""
        ...


class FrozenNetwork:
    """A network whose weights stay: what is made of weights alone is made once, and kept."""

    def __init__(self, network: Scorer) -> None:
        self.network = network
        with torch.no_grad():
            weight_VR, bias_V = network.output()
            self._output = weight_VR.contiguous(), bias_V

    @property
    def device(self) -> torch.device:
        """See `Scorer.device`."""
        return self.network.device

    @property
    def has_repeats(self) -> bool:
        """See `Network.has_repeats`."""
        return self.network.has_repeats

    def states(self, asked: Sequences, dropout: torch.Generator | None) -> Tensor:
        """See `Network.states`."""
        return self.network.states(asked, dropout)

    def wait_classes(self, days_M: Tensor) -> Tensor:
        """See `Scorer.wait_classes`."""
        return self.network.wait_classes(days_M)

    def repeats(self, states_MR: Tensor, own: OwnTensors) -> Repeats | None:
        """See `Network.repeats`."""
        return self.network.repeats(states_MR, own)

    def output(self) -> tuple[Tensor, Tensor]:
        """See `Network.output`."""
        return self._output
