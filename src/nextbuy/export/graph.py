"""A network as one graph: from histories to states, log-probabilities and the best items.

Legend: B rows, L purchases of the longest, V items, k offers.
"""

import torch
from torch import Tensor, nn

from nextbuy.data.histories import Int64
from nextbuy.export.own import own_of, repeats_of
from nextbuy.export.recurrent import gru_states, lstm_rnn_states
from nextbuy.export.transformer import transformer_states
from nextbuy.export.window import Asked, Window, window_of
from nextbuy.nn.gru import GruNetwork
from nextbuy.nn.recurrent import LstmRnnNetwork
from nextbuy.nn.transformer import TransformerNetwork

Exportable = TransformerNetwork | GruNetwork | LstmRnnNetwork

INPUTS = ("items", "baskets", "times", "as_of")
"""Names of the inputs; the last two only where time is dates."""

OUTPUTS = ("states", "scores", "top_items", "top_scores")


class ExportedNetwork(nn.Module):
    """Asks the network with the arrays that INPUTS names; answers with those of OUTPUTS.

    Args:
        network: With its weights.
        groups: Group of each item 0..V.
        longest: Purchases that a state looks back on, and one.
        temperature: Of the softmax over the catalog.
        k: Items to name.
    """

    vectors: Tensor
    table: Tensor
    bias: Tensor
    groups: Tensor

    def __init__(
        self,
        network: Exportable,
        *,
        groups: Int64,
        longest: int,
        temperature: float,
        k: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.longest, self.temperature = longest, temperature
        num_items = network.shape.num_items
        self.k = min(k, num_items)
        with torch.no_grad():
            self.register_buffer("vectors", network.embedding(torch.arange(num_items + 1)))
            table, bias = network.output()
            self.register_buffer("bias", torch.cat([torch.full((1,), -torch.inf), bias]))
            if isinstance(network, LstmRnnNetwork):
                self.register_buffer("table", torch.cat([torch.zeros_like(table[:1]), table]))
            else:
                self.table = self.vectors  # what was bought and what is scored are one table
        self.register_buffer("groups", torch.from_numpy(groups))

    def forward(
        self,
        items: Tensor,
        baskets: Tensor,
        times: Tensor | None = None,
        as_of: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States [B, D], log-probabilities [B, V + 1] (column 0, padding, is -inf), the best items
        [B, k] and theirs."""
        asked = Asked(
            items=items, baskets=baskets, times=times, as_of=as_of, lengths=(items > 0).sum(1)
        )
        num_items = self.network.shape.num_items
        window = window_of(asked, longest=self.longest, num_items=num_items)
        states = self._states(window)
        logits = torch.addmm(self.bias, states, self.table.t()) / self.temperature
        scores = torch.log_softmax(logits, dim=-1)
        if isinstance(self.network, TransformerNetwork) and self.network.repeat_head is not None:
            head = self.network.repeat_head
            own = own_of(asked)
            log_own, log_rest = repeats_of(
                head, own, items, states_BD=states, vectors_ID=self.vectors, groups_I=self.groups
            )
            scores = scores + log_rest[:, None]
            # Only places that are no own item share an index, and they all hold -inf.
            places = torch.where(own.is_newest, items, 0)
            shares = torch.full_like(scores, -torch.inf).scatter(1, places, log_own)
            mixed = torch.logaddexp(scores, shares)
            scores = torch.where(torch.isneginf(shares), scores, mixed)
        top_scores, top_items = scores.topk(self.k, dim=1)
        return states, scores, top_items, top_scores

    def _states(self, window: Window) -> Tensor:
        network = self.network
        if isinstance(network, TransformerNetwork):
            return transformer_states(network, window, self.vectors)
        if isinstance(network, GruNetwork):
            return gru_states(network, window, self.vectors)
        return lstm_rnn_states(network, window, self.vectors)
