"""Networks and losses in torch; they know tensors, not tables."""
