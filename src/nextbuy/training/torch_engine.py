"""The PyTorch engine: the default."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextbuy.errors import ConfigError
from nextbuy.nn.gbce import gbce_loss
from nextbuy.nn.gru import GruNetwork, GruShape
from nextbuy.nn.losses import full_softmax_loss, sampled_softmax_loss
from nextbuy.nn.network import Network, Sequences, Weights
from nextbuy.nn.own_items import OwnItems
from nextbuy.nn.recurrent import LstmRnnNetwork, LstmRnnShape
from nextbuy.nn.repeat_head import OwnTensors
from nextbuy.nn.transformer import TransformerNetwork
from nextbuy.seeding import stream_seed
from nextbuy.training.averaging import WeightAverage
from nextbuy.training.batches import Batch, Questions
from nextbuy.training.engine import Arrays, ItemSampler, Shape, TrainingConfig


def torch_device(name: str) -> torch.device:
    """The device by name.

    Raises:
        ConfigError: If it is not there.
    """
    there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name == "cuda" and len(there) > 1:
        name = there[1]
    if name not in there:
        raise ConfigError(f"Device {name!r} is not here; there is {', '.join(there)}.")
    return torch.device(name)


def network_of(shape: Shape, codes: NDArray[np.int64] | None = None) -> Network:
    """The network that has this shape, without weights.

    Args:
        shape: Sizes.
        codes: Of the attributes of items, [A, V + 1], for a shape that has attributes.
    """
    if isinstance(shape, LstmRnnShape):
        return LstmRnnNetwork(shape)
    if isinstance(shape, GruShape):
        return GruNetwork(shape)
    return TransformerNetwork(shape, None if codes is None else torch.from_numpy(codes))


def own_tensors(own: OwnItems) -> OwnTensors:
    """The same as tensors."""
    return OwnTensors(
        owners=torch.from_numpy(own.owners),
        items=torch.from_numpy(own.items.astype(np.int64)),
        groups=torch.from_numpy(own.groups),
        days=torch.from_numpy(own.days),
        features=torch.from_numpy(own.features),
        summaries=torch.from_numpy(own.summaries),
    )


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
    ) -> None:
        self._device = torch_device(device)
        self._config = config
        self._sampler = sampler
        self._seed = seed
        self._network = network_of(shape, codes).to(self._device)
        self._network.load_weights(weights)
        self._parameters = self._network.trained_parameters()
        decay = config.ema_decay
        self._average = None if decay is None else WeightAverage(self._parameters, decay)
        self._dropout = torch.Generator(self._device)
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=config.peak_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, batch: Batch, *, learning_rate: float, step: int) -> float:
        """Take one optimizer step; see `Engine.step`."""
        dropout = self._dropout.manual_seed(stream_seed(self._seed, "dropout", step))
        asked = batch.questions()
        sequences = self._sequences(batch, asked)
        hidden_MR = self._network.states(sequences, dropout)
        owners_N, targets_N = self._moved(asked.owners), self._moved(asked.targets)
        if self._config.loss == "gbce":
            loss = self._gbce(hidden_MR, owners_N, targets_N, step)
        else:
            mixed = self._mixed(sequences.own, batch.own, hidden_MR, asked, owners_N)
            if asked.weights is not None:
                mixed["weights_N"] = self._moved(asked.weights)
            loss = self._softmax(hidden_MR, owners_N, targets_N, mixed, step)
        value = float(loss.item())
        if math.isfinite(value):
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._config.clip_norm)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
            if self._average is not None:
                self._average.update()
        return value

    def _softmax(
        self,
        hidden_MR: torch.Tensor,
        owners_N: torch.Tensor,
        targets_N: torch.Tensor,
        mixed: dict[str, torch.Tensor],
        step: int,
    ) -> torch.Tensor:
        weight_VR, bias_V = self._network.output()
        if self._sampler is None:
            return full_softmax_loss(hidden_MR, weight_VR, bias_V, owners_N, targets_N, **mixed)
        samples, log_weights = self._sampler.draw_distinct(step)
        return sampled_softmax_loss(
            hidden_MR, weight_VR, bias_V, owners_N, targets_N, **mixed,
            samples_S=self._moved(samples), log_weights_S=self._moved(log_weights),
        )  # fmt: skip

    def _gbce(
        self, hidden_MR: torch.Tensor, owners_N: torch.Tensor, targets_N: torch.Tensor, step: int
    ) -> torch.Tensor:
        weight_VR, bias_V = self._network.output()
        samples = np.arange(len(bias_V))
        if self._sampler is not None:
            samples, _ = self._sampler.draw_distinct(step)
        return gbce_loss(
            hidden_MR, weight_VR, bias_V, owners_N, targets_N, samples_S=self._moved(samples)
        )

    def _sequences(self, batch: Batch, asked: Questions) -> Sequences:
        days = None if batch.days is None else batch.days.reshape(-1)[asked.states]
        return Sequences(
            items=self._moved(batch.inputs),
            marks=self._moved(batch.marks),
            states=self._moved(asked.states),
            gaps=None if batch.gaps is None else self._moved(batch.gaps),
            days=None if days is None else self._moved(days),
            own=None if batch.own is None else own_tensors(batch.own).to(self._device),
        )

    def _mixed(
        self,
        own: OwnTensors | None,
        found: OwnItems | None,
        hidden_MR: torch.Tensor,
        asked: Questions,
        owners_N: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """What the repeat head says of the targets, if there is one."""
        repeats = None if own is None else self._network.repeats(hidden_MR, own)
        if repeats is None or found is None:
            return {}
        pairs_N = self._moved(found.places_of(asked.owners, asked.targets + 1))
        log_own_N, log_rest_N = repeats.of_targets(pairs_N, owners_N)
        return {"log_own_N": log_own_N, "log_rest_N": log_rest_N}

    def _moved(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def weights(self) -> Weights:
        """A copy of the weights, or of their average if one is kept; see `Engine.weights`."""
        return self._network.weights() if self._average is None else self._average.weights()

    def optimizer_state(self) -> Arrays:
        """Adam's moments and step counts, one array each, named after the weight.

        With an average, also the weights themselves: `weights` is then the average.
        """
        arrays: Arrays = {} if self._average is None else self._average.state()
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state[parameter].items():
                arrays[f"{name}/{key}"] = np.array(value.detach().cpu().numpy())
        return arrays

    def restore(
        self, weights: Mapping[str, NDArray[Any]], optimizer_state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Go back to where weights and state were taken; see `Engine.restore`."""
        if self._average is None:
            self._network.load_weights(weights)
        else:
            self._average.restore(weights, optimizer_state)
        for name, parameter in self._parameters.items():
            state = {
                key.removeprefix(f"{name}/"): torch.from_numpy(np.array(value))
                for key, value in optimizer_state.items()
                if key.startswith(f"{name}/")
            }
            on_device = {
                key: value
                if key == "step" and self._device.type == "cpu"
                else value.to(self._device)
                for key, value in state.items()
            }
            self._optimizer.state[parameter] = on_device
