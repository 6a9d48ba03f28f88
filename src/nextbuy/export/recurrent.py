"""The states of networks that read by recurrence, and how ONNX says their layers.

torch would unroll a layer for one length; ONNX has the layers whole, with their gates in another
order: torch has reset, update, new (GRU) and input, forget, cell, output (LSTM), ONNX has update,
reset, new and input, output, forget, cell.

Legend: B rows, W positions, D width.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from nextbuy.export.window import Window
from nextbuy.nn.gru import GruNetwork
from nextbuy.nn.recurrent import LstmRnnNetwork

_GRU: Final = (1, 0, 2)
_LSTM: Final = (0, 3, 1, 2)
"""Where each gate of ONNX is found in torch."""


def gru_states(network: GruNetwork, window: Window, vectors_ID: Tensor) -> Tensor:
    """The state of each row, [B, D]; see `GruNetwork.states`."""
    x_BWD = F.embedding(window.items, vectors_ID)
    if network.basket is not None:
        x_BWD = x_BWD + network.basket(window.marks)
    h_BWH = network.norm_first(x_BWD)
    for layer in network.layers:
        h_BWH = _layer(layer, h_BWH)  # type: ignore[arg-type]  # ModuleList is untyped
    found: Tensor = network.norm_last(network.back(_asked(h_BWH, window)))
    return found


def lstm_rnn_states(network: LstmRnnNetwork, window: Window, vectors_ID: Tensor) -> Tensor:
    """The state of each row, [B, R]; see `LstmRnnNetwork.states`."""
    x_BWE = F.embedding(window.items, vectors_ID)
    if network.basket is not None:
        x_BWE = x_BWE + network.basket(window.marks)
    return _asked(_layer(network.rnn, _layer(network.lstm, x_BWE)), window)


def _asked(h_BWH: Tensor, window: Window) -> Tensor:
    ends = window.ends[:, None, None].expand(-1, 1, h_BWH.shape[2])
    return h_BWH.gather(1, ends)[:, 0]


def _layer(layer: nn.RNNBase, x_BWD: Tensor) -> Tensor:
    """All states of a layer, [B, W, H]: by torch, or in an export by the layer that ONNX has."""
    if not torch.onnx.is_in_onnx_export():
        return layer(x_BWD)[0]  # type: ignore[no-any-return]
    gates = {"GRU": _GRU, "LSTM": _LSTM}.get(layer.mode, (0,))
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if layer.mode == "GRU":
        attributes["linear_before_reset"] = 1
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    inputs, states, *biases = (_in_order(layer.get_parameter(name), gates) for name in names)
    B, W = x_BWD.shape[:2]
    outputs = 3 if layer.mode == "LSTM" else 2
    found = torch.onnx.ops.symbolic_multi_out(
        layer.mode if layer.mode in ("GRU", "LSTM") else "RNN",
        (x_BWD.transpose(0, 1), inputs[None], states[None], torch.cat(biases)[None]),
        attributes,
        dtypes=[x_BWD.dtype] * outputs,
        shapes=[[W, 1, B, layer.hidden_size], *[[1, B, layer.hidden_size]] * (outputs - 1)],
    )
    return found[0][:, 0].transpose(0, 1)


def _in_order(values: Tensor, gates: Sequence[int]) -> Tensor:
    size = len(values) // len(gates)
    return torch.cat([values[place * size : (place + 1) * size] for place in gates])
