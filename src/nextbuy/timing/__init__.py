"""When each user buys again: statistics of purchase times, and what they say about the future."""
