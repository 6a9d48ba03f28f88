"""A network as one graph: from histories to states, log-probabilities and the best items.

Legend: B rows, L purchases of the longest, V items, k offers.
"""

import torch
from torch import Tensor, nn

from nextbuy.data.histories import Int64
from nextbuy.export.own import own_of, repeats_of
from nextbuy.export.transformer import transformer_states
from nextbuy.export.window import Asked, window_of
from nextbuy.nn.transformer import TransformerNetwork

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
    bias: Tensor
    groups: Tensor

    def __init__(
        self,
        network: TransformerNetwork,
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
            vectors = network.embedding(torch.arange(num_items + 1))
            bias = torch.cat([torch.full((1,), -torch.inf), network.bias])
        self.register_buffer("vectors", vectors)
        self.register_buffer("bias", bias)
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
        states = transformer_states(self.network, window, self.vectors)
        logits = torch.addmm(self.bias, states, self.vectors.t()) / self.temperature
        scores = torch.log_softmax(logits, dim=-1)
        head = self.network.repeat_head
        if head is not None:
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
