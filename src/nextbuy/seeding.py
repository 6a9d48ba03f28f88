"""One seed to as many independent generators as a run needs, each with a name.

Nothing in nextbuy touches a global generator. A stream depends only on the seed and its name, so
that adding a new stream never changes an old one, and a resumed run draws what it would have drawn.
"""

import hashlib

import numpy as np


def stream_seed(seed: int, *name: str | int) -> int:
    """A 63-bit seed for the stream `name` of the run `seed`.

    Args:
        seed: The seed of the run, any integer.
        name: What the stream is for, for example `"shuffle", epoch`.

    Returns:
        An integer in [0, 2**63), the first bytes of the SHA-256 of seed and name.
    """
    text = "\x1f".join([str(seed), *(str(part) for part in name)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """A NumPy generator for the stream `name` of the run `seed`."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *name)))
