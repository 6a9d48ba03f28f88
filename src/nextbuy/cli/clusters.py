"""`--cluster`: what commands do on a Ray cluster, whose package is an extra."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextbuy.cluster.config import ClusterConfig
    from nextbuy.data.prepare.buckets import EncodesBuckets
    from nextbuy.models.protocol import Workers
    from nextbuy.predictor.everybody import Scoring
    from nextbuy.tuning.workers import StartsProcess


@contextmanager
def on_cluster(address: str | None, workers: int) -> "Iterator[ClusterConfig | None]":
    """Connected to a cluster, if one is asked for.

    Raises:
        MissingExtraError: If Ray is not installed.
        ConfigError: If there is no cluster at the address.
    """
    if address is None:
        yield None
        return
    from nextbuy.cluster.config import ClusterConfig

    config = ClusterConfig.of(address=address, workers=workers)
    try:
        from nextbuy.cluster.connecting import connected
    except ImportError as error:
        if (error.name or "").split(".")[0] != "ray":
            raise
        from nextbuy.errors import MissingExtraError

        raise MissingExtraError("ray", "cluster", "--cluster") from error
    # Ray prints what died to standard output, which belongs to the answer of the command.
    with redirect_stdout(sys.stderr), connected(config):
        yield config


def workers_of(config: "ClusterConfig | None") -> "Workers | None":
    """Who fits networks; None is this process."""
    if config is None:
        return None
    from nextbuy.cluster.training import RayWorkers

    return RayWorkers(config)


def scoring_of(config: "ClusterConfig | None") -> "Scoring":
    """Where blocks of users are scored."""
    if config is None:
        from nextbuy.predictor.everybody import score_here

        return score_here
    from nextbuy.cluster.blocks import RayBlocks

    blocks = RayBlocks(config)
    return lambda scorer, numbers: blocks(scorer.offers, numbers)


def encoding_of(config: "ClusterConfig | None") -> "EncodesBuckets | None":
    """Who encodes the buckets of a log; None is this process."""
    if config is None:
        return None
    from nextbuy.cluster.blocks import RayBlocks

    return RayBlocks(config)


def starts_of(config: "ClusterConfig | None") -> "StartsProcess | None":
    """Who starts the workers of a search; None starts them here."""
    if config is None:
        return None
    from nextbuy.cluster.processes import starting_on

    return starting_on(config)
