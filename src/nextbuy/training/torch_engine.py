"""The PyTorch engine: the default."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextbuy.errors import ConfigError
from nextbuy.nn.losses import full_softmax_loss, sampled_softmax_loss
from nextbuy.nn.recurrent import LstmRnnNetwork, LstmRnnShape, Weights
from nextbuy.seeding import stream_seed
from nextbuy.training.batches import Batch
from nextbuy.training.engine import Arrays, ItemSampler, TrainingConfig


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


class TorchEngine:
    """Trains the network with fused AdamW."""

    def __init__(
        self,
        shape: LstmRnnShape,
        config: TrainingConfig,
        *,
        weights: Weights,
        sampler: ItemSampler | None,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._device = torch_device(device)
        self._config = config
        self._sampler = sampler
        self._seed = seed
        self._network = LstmRnnNetwork(shape).to(self._device)
        self._network.load_weights(weights)
        self._parameters = self._network.trained_parameters()
        self._dropout = torch.Generator(self._device)
        self._log_expected = (
            None if sampler is None else torch.from_numpy(sampler.log_expected).to(self._device)
        )
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=config.peak_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, batch: Batch, *, learning_rate: float, step: int) -> float:
        """Take one optimizer step; see `Engine.step`."""
        asked = batch.questions()
        inputs_BL, marks_BL, states_M, owners_N, targets_N = (
            torch.from_numpy(a).to(self._device)
            for a in (batch.inputs, batch.marks, asked.states, asked.owners, asked.targets)
        )
        dropout = self._dropout.manual_seed(stream_seed(self._seed, "dropout", step))
        hidden_MR = self._network.hidden(inputs_BL, marks_BL, dropout).flatten(0, 1)[states_M]
        dense = self._network.dense
        if self._sampler is None or self._log_expected is None:
            loss = full_softmax_loss(hidden_MR, dense.weight, dense.bias, owners_N, targets_N)
        else:
            samples_S = torch.from_numpy(self._sampler.draw(step)).to(self._device)
            loss = sampled_softmax_loss(
                hidden_MR[owners_N], dense.weight, dense.bias, targets_N,
                samples_S=samples_S, log_expected_V=self._log_expected,
            )  # fmt: skip
        value = float(loss.item())
        if math.isfinite(value):
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._config.clip_norm)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        return value

    def weights(self) -> Weights:
        """A copy of the weights; see `Engine.weights`."""
        return self._network.weights()

    def optimizer_state(self) -> Arrays:
        """Adam's moments and step counts, one array each, named after the weight."""
        arrays: Arrays = {}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state[parameter].items():
                arrays[f"{name}/{key}"] = np.array(value.detach().cpu().numpy())
        return arrays

    def restore(
        self, weights: Mapping[str, NDArray[Any]], optimizer_state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Go back to where weights and state were taken; see `Engine.restore`."""
        self._network.load_weights(weights)
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
