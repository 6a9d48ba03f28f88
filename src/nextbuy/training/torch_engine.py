"""The PyTorch engine: the default."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextbuy.errors import ConfigError
from nextbuy.nn.dropout import RowsGenerator
from nextbuy.nn.gbce import gbce_loss
from nextbuy.nn.gru import GruNetwork, GruShape
from nextbuy.nn.losses import full_softmax_loss, sampled_softmax_loss
from nextbuy.nn.network import Network, Sequences, Weights
from nextbuy.nn.own_items import OwnItems
from nextbuy.nn.placing import CPU, copied, placed
from nextbuy.nn.recurrent import LstmRnnNetwork, LstmRnnShape
from nextbuy.nn.repeat_head import OwnTensors
from nextbuy.nn.transformer import TransformerNetwork, TransformerShape
from nextbuy.seeding import stream_seed
from nextbuy.training.averaging import WeightAverage
from nextbuy.training.batches import Batch
from nextbuy.training.engine import Arrays, ItemSampler, Shape, TrainingConfig
from nextbuy.training.parts import part_of, rows_of
from nextbuy.training.team import Alone, Team
from nextbuy.training.touched_rows import TouchedRows, touched_items

_WIDTH_OF_BF16: Final = 256
"""From here on bf16 is faster on a GPU; narrower steps are mostly launches, and single is."""


def torch_device(name: str) -> torch.device:
    """The device by name; `cuda` is the first one.

    Raises:
        ConfigError: If it is not there.
    """
    there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name == "cuda" and len(there) > 1:
        name = there[1]
    if name not in there:
        raise ConfigError(f"Device {name!r} is not here; there is {', '.join(there)}.")
    return torch.device(name)


def nearest_device(name: str) -> torch.device:
    """The device by name; another GPU if that one is not here, and the CPU if there is none."""
    for other in (name, "cuda", "cpu") if name.startswith("cuda") else (name,):
        try:
            return torch_device(other)
        except ConfigError:
            continue
    return CPU


def decided_precision(
    config: TrainingConfig, shape: Shape, device: torch.device
) -> Literal["single", "bf16"]:
    """How exactly the products inside the network are computed while it trains.

    Raises:
        ConfigError: If bf16 is asked for a recurrent network.
    """
    is_transformer = isinstance(shape, TransformerShape)
    if config.precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        pays = isinstance(shape, TransformerShape) and shape.width >= _WIDTH_OF_BF16
        return "bf16" if has_bf16 and pays else "single"
    if config.precision == "bf16" and not is_transformer:
        raise ConfigError(
            "Recurrent networks are trained in single precision: their states are sums over a "
            "whole history. Asked for precision='bf16'; leave it out, or choose transformer."
        )
    return config.precision


def network_of(
    shape: Shape, codes: NDArray[np.int64] | None = None
) -> LstmRnnNetwork | GruNetwork | TransformerNetwork:
    """The network that has this shape; its weights have to be loaded.

    Args:
        shape: Sizes.
        codes: Of the attributes of items, [A, V + 1], for a shape that has attributes.
    """
    if isinstance(shape, LstmRnnShape):
        return LstmRnnNetwork(shape)
    if isinstance(shape, GruShape):
        return GruNetwork(shape)
    with torch.device("meta"):  # torch would draw weights, which takes seconds for a large table
        network = TransformerNetwork(shape)
    network = network.to_empty(device=CPU)
    network.embedding.see(None if codes is None else torch.from_numpy(codes))
    return network


def own_tensors(own: OwnItems, device: torch.device = CPU) -> OwnTensors:
    """The same as tensors on a device."""
    return OwnTensors(
        owners=placed(own.owners, device),
        items=placed(own.items.astype(np.int64), device),
        groups=placed(own.groups, device),
        days=placed(own.days, device),
        features=placed(own.features, device),
        summaries=placed(own.summaries, device),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PlacedBatch(Batch):
    """A batch for one step, and this process's part of it as tensors on the device.

    Attributes:
        rows: Those of the part.
        share: Of the targets that are in the part.
        sequences: What the network reads.
        owners: Of the targets; see `Questions`.
        items: Item rows of the targets, 0..V-1; [N].
        counts: How much each target counts, [N]; None where all do alike.
        pairs: Place of each target among the own items, -1 where it is none, [N]; None without own
            items.
        samples: Distinct item rows of the sampled loss and their log weights; None without.
        touched: Items whose rows the step changes; all that is said of items is then a place among
            them. None where the step changes all rows.
    """

    rows: slice
    share: float
    sequences: Sequences
    owners: Tensor
    items: Tensor
    counts: Tensor | None
    pairs: Tensor | None
    samples: tuple[Tensor, Tensor] | None
    touched: Tensor | None


class LateLoss:
    """A loss that a GPU is still computing; to ask for it waits for that step, not for later ones.

    Args:
        loss: A scalar on the GPU.
    """

    def __init__(self, loss: Tensor) -> None:
        self._value = torch.empty((), dtype=loss.dtype, pin_memory=True)
        self._value.copy_(loss.detach(), non_blocking=True)
        self._is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._is_there.record(torch.cuda.current_stream(loss.device))

    def __float__(self) -> float:
        self._is_there.synchronize()
        return float(self._value)


class TorchEngine:
    """Trains the network with fused AdamW."""

    def __init__(
        self,
        shape: Shape,
        config: TrainingConfig,
        *,
        weights: Weights,
        sampler: ItemSampler | None,
        seed: int,
        device: str = "cpu",
        codes: NDArray[np.int64] | None = None,
        team: Team | None = None,
    ) -> None:
        self._team = team or Alone()
        self._device = torch_device(device)
        self._precision = decided_precision(config, shape, self._device)
        self._config = config
        self._sampler = sampler
        self._seed = seed
        self._network = network_of(shape, codes).to(self._device)
        self._network.load_weights(weights)
        self._parameters = self._network.trained_parameters()
        decay = config.ema_decay
        self._average = None if decay is None else WeightAverage(self._parameters, decay)
        self._dropout = RowsGenerator(self._device)
        self._seen: Network = self._network
        self._rows: TouchedRows | None = None
        if config.has_sparse_rows(shape.num_items):
            small = network_of(shape.model_copy(update={"num_items": 1})).to(self._device)
            self._rows = TouchedRows(
                self._network, small, beta2=config.beta2, weight_decay=config.weight_decay
            )
            self._seen = small
        row_by_row = set() if self._rows is None else self._rows.names
        self._dense = {n: p for n, p in self._parameters.items() if n not in row_by_row}
        self._optimizer = torch.optim.AdamW(
            self._dense.values(),
            lr=config.peak_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        # The host does not wait for the loss of a GPU: there the optimizer itself looks whether
        # one was not finite so far, and then leaves the weights as they are.
        self._is_broken = None if self._device == CPU else torch.zeros((), device=self._device)

    def prepare(self, batch: Batch, step: int) -> Batch:
        """Put this process's part on the device, with the samples of the step; see
        `Engine.prepare`."""
        rows = rows_of(len(batch.inputs), self._team.rank, self._team.size)
        part = batch if self._team.size == 1 else part_of(batch, rows)
        asked, device, own = part.questions(), self._device, part.own
        days = None if part.days is None else part.days.reshape(-1)[asked.states]
        pairs = samples = touched = None
        if own is not None:
            pairs = placed(own.places_of(asked.owners, asked.targets + 1), device)
        if self._sampler is not None:
            samples = self._sampler.draw_distinct(step)
        inputs, targets = part.inputs, asked.targets
        if self._rows is not None and samples is not None:
            touched = touched_items(batch, samples[0])  # the whole batch: all change the same rows
            inputs = np.searchsorted(touched, inputs)
            targets = np.searchsorted(touched, targets + 1) - 1
            samples = np.searchsorted(touched, samples[0] + 1) - 1, samples[1]
            if own is not None:
                places = np.searchsorted(touched, own.items).astype(np.int32)
                own = replace(own, items=places)
        sequences = Sequences(
            items=placed(inputs, device),
            marks=placed(part.marks, device),
            states=placed(asked.states, device),
            gaps=None if part.gaps is None else placed(part.gaps, device),
            days=None if days is None else placed(days, device),
            own=None if own is None else own_tensors(own, device),
        )
        return PlacedBatch(
            **{field.name: getattr(batch, field.name) for field in fields(Batch)},
            rows=rows,
            share=len(asked.targets) / max(1, batch.num_targets),
            sequences=sequences,
            owners=placed(asked.owners, device),
            items=placed(targets, device),
            counts=None if asked.weights is None else placed(asked.weights, device),
            pairs=pairs,
            samples=None
            if samples is None
            else (placed(samples[0], device), placed(samples[1], device)),
            touched=None if touched is None else placed(touched, device),
        )

    def step(self, batch: Batch, *, learning_rate: float, step: int) -> SupportsFloat:
        """Take one optimizer step; see `Engine.step`."""
        if not isinstance(batch, PlacedBatch):
            return self.step(self.prepare(batch, step), learning_rate=learning_rate, step=step)
        if self._rows is not None and batch.touched is not None:
            self._rows.seen_by_small(batch.touched)
        loss = self._gradients(batch, step)
        if self._is_broken is None:
            value = float(loss.item())
            if math.isfinite(value):
                self._update(learning_rate)
            return value
        torch.maximum(self._is_broken, (~loss.isfinite()).float(), out=self._is_broken)
        self._optimizer.found_inf = self._is_broken  # type: ignore[attr-defined]
        self._update(learning_rate)
        return LateLoss(loss) if loss.is_cuda else float(loss)

    def _gradients(self, batch: PlacedBatch, step: int) -> Tensor:
        """The loss of the whole batch, whose gradients are then those of the parameters."""
        self._optimizer.zero_grad(set_to_none=True)
        dropout = self._dropout
        dropout.manual_seed(stream_seed(self._seed, "dropout", step))
        dropout.first, dropout.whole = batch.rows.start, len(batch.inputs)
        loss = torch.zeros((), device=self._device)
        if batch.share or self._team.size == 1:  # of few rows a process may have none
            with self._autocast():
                hidden_MR = self._seen.states(batch.sequences, dropout).float()
            loss = self._loss(hidden_MR, batch)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self._team.add_up(self._changed(), loss, batch.share)

    def _changed(self) -> list[torch.nn.Parameter]:
        """What the step changes."""
        return [*self._dense.values(), *([] if self._rows is None else self._rows.leaves())]

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "single":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def _update(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        torch.nn.utils.clip_grad_norm_(self._changed(), self._config.clip_norm)
        self._optimizer.step()
        if self._rows is not None:
            self._rows.step(learning_rate, self._is_broken)
        if self._average is not None:
            self._average.update()

    def _loss(self, hidden_MR: Tensor, batch: PlacedBatch) -> Tensor:
        weight_VR, bias_V = self._seen.output()
        asked = (hidden_MR, weight_VR, bias_V, batch.owners, batch.items)
        if self._config.loss == "gbce":
            samples = None if batch.samples is None else batch.samples[0]
            if samples is None:
                samples = torch.arange(len(bias_V), device=self._device)
            num_items = self._network.shape.num_items
            return gbce_loss(*asked, samples_S=samples, num_items=num_items)
        mixed = self._mixed(hidden_MR, batch)
        if batch.counts is not None:
            mixed["weights_N"] = batch.counts
        if batch.samples is None:
            return full_softmax_loss(*asked, **mixed)
        rows, log_weights = batch.samples
        return sampled_softmax_loss(*asked, **mixed, samples_S=rows, log_weights_S=log_weights)

    def _mixed(self, hidden_MR: Tensor, batch: PlacedBatch) -> dict[str, Tensor]:
        """What the repeat head says of the targets, if there is one."""
        own, pairs = batch.sequences.own, batch.pairs
        repeats = None if own is None else self._seen.repeats(hidden_MR, own)
        if repeats is None or pairs is None:
            return {}
        log_own_N, log_rest_N = repeats.of_targets(pairs, batch.owners)
        return {"log_own_N": log_own_N, "log_rest_N": log_rest_N}

    def weights(self) -> Weights:
        """A copy of the weights, or of their average if one is kept; see `Engine.weights`."""
        return self._network.weights() if self._average is None else self._average.weights()

    def optimizer_state(self) -> Arrays:
        """Adam's moments and counts of steps, one array each, named after the weight.

        With an average, also the weights themselves: `weights` is then the average.
        """
        arrays: Arrays = {} if self._average is None else self._average.state()
        if self._rows is not None:
            arrays |= self._rows.state()
        for name, parameter in self._dense.items():
            for key, value in self._optimizer.state[parameter].items():
                arrays[f"{name}/{key}"] = copied(value)
        return arrays

    def restore(
        self, weights: Mapping[str, NDArray[Any]], optimizer_state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Go back to where weights and state were taken; see `Engine.restore`."""
        if self._average is None:
            self._network.load_weights(weights)
        else:
            self._average.restore(weights, optimizer_state)
        if self._rows is not None:
            self._rows.restore(optimizer_state)
        for name, parameter in self._dense.items():
            self._optimizer.state[parameter] = {
                key.removeprefix(f"{name}/"): torch.from_numpy(np.array(value)).to(self._device)
                for key, value in optimizer_state.items()
                if key.startswith(f"{name}/")
            }
