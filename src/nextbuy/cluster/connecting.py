"""To a Ray cluster and away from it again."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nextbuy.cluster.config import ClusterConfig
from nextbuy.errors import ConfigError

_OBJECT_STORE: Final = 256 << 20
_REACH_SECONDS: Final = 5.0
_KILL_SECONDS: Final = 10.0
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns about what it will do some day
}


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Within it Ray can be asked; a connection that was there before stays.

    Raises:
        ConfigError: If there is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    try:
        if config.address == "local":
            ray.init(
                address="local", num_cpus=max(config.workers, os.cpu_count() or 1),
                include_dashboard=False, object_store_memory=_OBJECT_STORE, **quiet,
            )  # fmt: skip
        else:
            _check_reachable(config.address)
            ray.init(address=config.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"There is no Ray cluster at {config.address!r}: {error} Start one with "
            "`ray start --head`, or say --cluster local."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit():
        raise ConfigError(
            f"--cluster {address!r} is no address: write HOST:PORT, auto or local. Addresses "
            "ray://... are not taken: the command must run on a machine of the cluster."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"{error.strerror or error}.") from error


def here() -> str:
    """The id of the node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())


def own_address() -> str:
    """That other nodes reach this one by."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def whereabouts() -> dict[str, str]:
    """Of this process, for people and for `end_process`."""
    return {"host": own_address(), "node": here(), "pid": str(os.getpid())}


def end_process(node: str, pid: int) -> None:
    """Kill a process on a node that does not answer: one that was stopped would otherwise keep its
    processors, because Ray asks it to leave by itself."""
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    task: Any = ray.remote(_kill)
    ray.wait(
        [task.options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(pid)],
        timeout=_KILL_SECONDS,
    )


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def what_is_free() -> str:
    """Processors and GPUs that nobody has taken, in words."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return f"{free.get('CPU', 0):g} processors and {free.get('GPU', 0):g} GPUs"


def cpus_for_each(workers: int, wanted: int) -> int:
    """Processors that each worker may have, at most `wanted`.

    Raises:
        ConfigError: If the cluster has not one for each, or this node none at all.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    there = {n["NodeID"]: int(n["Resources"].get("CPU", 0)) for n in nodes if n["Alive"]}
    total, own = sum(there.values()), there.get(here(), 0)
    if total < workers or own < 1:
        raise ConfigError(
            f"{workers} workers need a processor each, the first on the machine of this command; "
            f"the cluster has {total}, this machine {own} of them. Ask for fewer --workers."
        )
    return max(1, min(wanted, total // workers, own))
