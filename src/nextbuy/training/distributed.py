"""A team of processes, perhaps on several machines, over torch.distributed.

Rank 0 holds a key-value store that the others find by its address: who is there, and what rank 0
decided. Gradients go through a process group, gloo on CPUs and NCCL on GPUs. Both listen on the
given address alone: neither asks anybody for a password, so that network must be trusted.

What a collective waits for is bounded by `JoinConfig.timeout_seconds`. A peer whose process ends is
noticed at once, one that hangs or cannot be reached after that time.
"""

import json
import logging
import re
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, TCPStore

from nextbuy.errors import JoinError, PeerLostError
from nextbuy.nn.placing import CPU
from nextbuy.training.interruption import StopRequest

logger = logging.getLogger(__name__)

_LOOKS_ON_A_GPU: Final = 16
"""Steps between two looks at whether to stop: each would wait for the device."""

_FRAMES: Final = 12


class JoinConfig(BaseModel):
    """How a team finds together; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=2, description="processes in all")
    join_seconds: float = Field(default=20.0, gt=0, description="within which all must be there")
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="that one waits for another; a save must fit in"
    )
    must_agree: Mapping[str, str | int] = Field(
        default_factory=dict, description="facts that all must have alike, such as a hash of code"
    )


def listen(host: str, port: int = 0) -> socket.socket:
    """A socket for the store of rank 0, on one address alone.

    Args:
        host: Address of this machine that the others reach it by.
        port: 0 is any that is free.

    Raises:
        JoinError: If the port is in use or the address is not of this machine.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise JoinError(
            f"Rank 0 cannot listen on {host} port {port}: {error.strerror}. "
            "Give another port, or none to take any that is free."
        ) from error
    return listening


def join(
    host: str,
    port: int,
    rank: int,
    config: JoinConfig,
    *,
    listening: socket.socket | None = None,
    own_host: str | None = None,
    device: torch.device = CPU,
    stop: StopRequest | None = None,
) -> "DistributedTeam":
    """Become one of a team, once all are there.

    Args:
        host: Address of rank 0.
        port: Of its store.
        rank: Of this process.
        config: The same for all.
        listening: From `listen`, for rank 0.
        own_host: Address that the others reach this process by; `host` for rank 0.
        device: Where the gradients are.
        stop: Set on rank 0 to let all stop after the same step.

    Raises:
        JoinError: Within `join_seconds`: if this rank or this size is not meant, the rank is there
            already, facts differ, or some do not come.
    """
    patience = timedelta(seconds=config.join_seconds)
    if rank != 0:
        _reach(host, port, rank, config)
    try:
        store = TCPStore(
            host, port, is_master=rank == 0, wait_for_workers=False, timeout=patience,
            master_listen_fd=None if listening is None else listening.detach(),
        )  # fmt: skip
        _agree(store, rank, config)
        _wait_for_all(store, config)
        group = _group(store, rank, config, device, own_host or host)
    except JoinError:
        raise
    except RuntimeError as error:  # of torch: DistNetworkError, DistStoreError and so on
        raise JoinError(
            f"Rank {rank} cannot join the team of {config.size} at {host} port {port}: "
            f"{_first_line(error)}. Is rank 0 there, and can it be reached from here?"
        ) from error
    return DistributedTeam(
        rank, config, store=store, group=group, device=device, stop=stop or StopRequest()
    )


def _reach(host: str, port: int, rank: int, config: JoinConfig) -> None:
    """Wait until rank 0 listens; torch itself would try twice as long, and print its own stack."""
    ends = time.monotonic() + config.join_seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=config.join_seconds).close()
        except OSError as error:
            if time.monotonic() > ends:
                raise JoinError(
                    f"Rank {rank} does not reach rank 0 at {host} port {port} within "
                    f"{config.join_seconds:g} s: {error.strerror or error}."
                ) from error
            time.sleep(0.1)
        else:
            return


def _agree(store: TCPStore, rank: int, config: JoinConfig) -> None:
    mine: dict[str, Any] = {"size": config.size, **config.must_agree}
    if rank == 0:
        store.set("facts", json.dumps(mine))
    told = json.loads(store.get("facts"))
    if mine != told:
        names = [n for n in {**told, **mine} if mine.get(n) != told.get(n)]
        said = "; ".join(f"{n} {mine.get(n)!r}, rank 0 has {told.get(n)!r}" for n in names)
        raise JoinError(f"Rank {rank} does not belong to this team: it has {said}.")
    if not 0 <= rank < config.size:
        raise JoinError(f"There are ranks 0 to {config.size - 1} in this team, and no {rank}.")
    if store.add(f"rank {rank}", 1) > 1:
        raise JoinError(f"Rank {rank} is there already; two processes were given the same rank.")


def _wait_for_all(store: TCPStore, config: JoinConfig) -> None:
    ends = time.monotonic() + config.join_seconds
    names = {f"rank {rank}": rank for rank in range(config.size)}
    while not store.check(list(names)):
        if time.monotonic() > ends:
            missing = [str(rank) for name, rank in names.items() if not store.check([name])]
            raise JoinError(
                f"Of {config.size} ranks {', '.join(missing)} did not come within "
                f"{config.join_seconds:g} s."
            )
        time.sleep(0.05)


def _group(
    store: TCPStore, rank: int, config: JoinConfig, device: torch.device, own_host: str
) -> Any:  # torch does not type its process groups
    timeout = timedelta(seconds=config.timeout_seconds)
    within = PrefixStore("group", store)
    if device.type == "cuda" and dist.is_nccl_available():
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return dist.ProcessGroupNCCL(within, rank, config.size, options)
    gloo: Any = dist.ProcessGroupGloo
    settings = gloo._Options()
    settings._timeout = timeout
    settings._devices = [gloo.create_device(hostname=own_host)]
    return gloo(within, rank, config.size, settings)


class DistributedTeam:
    """See `Team`; made by `join`."""

    def __init__(
        self,
        rank: int,
        config: JoinConfig,
        *,
        store: TCPStore,
        group: Any,
        device: torch.device,
        stop: StopRequest,
    ) -> None:
        self.rank, self.size = rank, config.size
        self.seconds = [0.0] * config.size
        """What each rank has computed, without waiting for others."""
        self._config, self._store, self._group, self._device = config, store, group, device
        self._asked = stop  # of rank 0, at any time
        self._stop = StopRequest()  # of all, after the same step
        self._steps = self._agreements = self._runs = 0
        self._began: float | None = None

    @contextmanager
    def stopping(self) -> Iterator[StopRequest]:
        """See `Team.stopping`. Rank 0, which holds the store, leaves it last: others may still read
        what it said at the end."""
        yield self._stop
        self._runs += 1
        key = f"left {self._runs}"
        ends = time.monotonic() + self._config.timeout_seconds
        with self._waiting("the end"):
            self._store.add(key, 1)
            while self.rank == 0 and self._store.add(key, 0) < self.size:
                if time.monotonic() > ends:
                    logger.warning("Not all of %d ranks have come to the end.", self.size)
                    return
                time.sleep(0.02)

    def shared(self, content: bytes) -> bytes:
        """See `Team.shared`."""
        size = torch.tensor([len(content)], dtype=torch.int64, device=self._device)
        with self._waiting("what rank 0 shares"):
            self._group.broadcast(size, 0).wait()
        buffer = np.frombuffer(content, np.uint8) if self.rank == 0 else np.zeros(int(size), "u1")
        sent = torch.from_numpy(np.array(buffer)).to(self._device)
        with self._waiting("what rank 0 shares"):
            self._group.broadcast(sent, 0).wait()
        return sent.cpu().numpy().tobytes()

    def agreed(self, compute: Callable[[], float]) -> float:
        """See `Team.agreed`: through the store, where waiting has no end while rank 0 lives."""
        self._agreements += 1
        key, self._began = f"agreed {self._agreements}", None
        if self.rank == 0:
            value = float(compute())
            with self._waiting("the store"):
                self._store.set(key, value.hex())
            return value
        with self._waiting("what rank 0 computes"):
            while not self._store.check([key]):
                time.sleep(0.02)
            return float.fromhex(self._store.get(key).decode())

    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor, share: float) -> Tensor:
        """See `Team.add_up`: one sum of everything, with what else all must know behind it."""
        has_gradient = [p.grad is not None for p in parameters]
        flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        weighed = torch.cat([*(g.reshape(-1) for g in flat), loss.detach().reshape(1)]).mul_(share)
        told = [0.0] * (1 + self.size) + [float(one) for one in has_gradient]
        told[0] = float(self._asked.signal_number or 0) if self.rank == 0 else 0.0
        told[1 + self.rank] = 0.0 if self._began is None else time.monotonic() - self._began
        everything = torch.cat([weighed, weighed.new_tensor(told)])
        with self._waiting("gradients"):
            self._group.allreduce([everything]).wait()
        self._began, self._steps = time.monotonic(), self._steps + 1
        sums, said = everything[: len(weighed)], everything[len(weighed) :]
        if self._device.type == "cpu" or self._steps % _LOOKS_ON_A_GPU == 0:
            self._hear(said[: 1 + self.size].tolist())
        if not all(has_gradient):
            has_gradient = (said[1 + self.size :] > 0).tolist()
        place = 0
        for parameter, has in zip(parameters, has_gradient, strict=True):
            here = sums[place : place + parameter.numel()]
            parameter.grad = here.view_as(parameter) if has else None
            place += parameter.numel()
        return sums[-1]

    def _hear(self, said: list[float]) -> None:
        if said[0] > 0:
            self._stop.signal_number = int(said[0])
        self.seconds = [one + more for one, more in zip(self.seconds, said[1:], strict=True)]

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """Within it the others are waited for; says who waited for what, and where."""
        started = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            waited = time.monotonic() - started
            stack = "".join(traceback.format_stack(limit=_FRAMES))
            logger.warning("Rank %d waited for %s here:\n%s", self.rank, what, stack)
            raise PeerLostError(
                f"Rank {self.rank} waited {waited:.1f} s for {what} in step {self._steps} of this "
                f"start, and lost another rank: {_first_line(error)}."
            ) from error


def _first_line(error: Exception) -> str:
    """What torch says, without the place in its source and what it guesses."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    line = re.sub(r"^\[/\S+\] ", "", line)
    return line.split(" This is typically")[0].rstrip(". ")[:300]
