"""Networks fitted by the workers of a cluster, from checkpoint to checkpoint until it is done."""

import logging
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import ray
import torch

from nextbuy.cluster.config import ClusterConfig
from nextbuy.cluster.connecting import cpus_for_each
from nextbuy.cluster.crew import Crew
from nextbuy.cluster.worker import Job
from nextbuy.data.catalog import Catalog
from nextbuy.data.histories import Histories
from nextbuy.errors import ConfigError, PeerLostError, RunLockedError
from nextbuy.models.neural import NeuralModel
from nextbuy.models.protocol import FitOptions, Model
from nextbuy.splitting.cases import Cases
from nextbuy.training.interruption import StopRequest, stop_on_signals

logger = logging.getLogger(__name__)


class RayWorkers:
    """See `Workers`. Use it within `connected`.

    One worker computes what a fit here computes, to the last bit, on as many threads of the same
    kind of machine. Several share each batch: losses and gradients are then the same but for the
    rounding of sums, since batches, dropout and samples are drawn for the whole batch. A start that
    loses a worker is begun again from the newest checkpoint.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.lost: list[str] = []
        """What was lost so far, in words."""

    def check(self, model: Model) -> None:
        """Refuse what workers cannot fit; see `Workers.check`."""
        if not isinstance(model, NeuralModel):
            return
        config = model.config
        if config.engine != "torch":
            raise ConfigError(
                f"Workers of a cluster train by torch only; asked for the engine {config.engine}. "
                "Leave --engine out, or train it without --cluster."
            )
        if config.device not in ("cpu", "cuda"):
            raise ConfigError(
                f"Each worker of a cluster sees its own GPU alone; asked for {config.device!r}. "
                "Say cpu or cuda."
            )

    def fit(
        self,
        model: Model,
        train: Histories,
        validation: Cases,
        catalog: Catalog,
        options: FitOptions,
    ) -> Model:
        """Fit a network; see `Workers.fit`.

        Raises:
            ConfigError: If there is a deadline, or the cluster is too small.
            PeerLostError: If workers were lost `most_restarts` times in a row without a new
                checkpoint between.
        """
        self.check(model)
        if options.deadline is not None:
            raise ConfigError(
                "A time limit ends training by the clock of one machine, which workers of a "
                "cluster do not share. Leave --time-limit or --cluster out."
            )
        assert isinstance(model, NeuralModel), "others are fitted here"  # noqa: S101
        job = ray.put(Job(model=model, train=train, validation=validation, catalog=catalog))
        with ExitStack() as stack:
            if options.run_folder is None:  # so that what is lost is not begun anew
                temporary = stack.enter_context(tempfile.TemporaryDirectory())
                options = replace(options, run_folder=Path(temporary))
            stop = stack.enter_context(stop_on_signals())
            return self._until_done(job, model, options, stop)

    def _until_done(
        self,
        job: object,
        model: "NeuralModel",  # type: ignore[type-arg]  # whatever its config
        options: FitOptions,
        stop: StopRequest,
    ) -> Model:
        threads = cpus_for_each(self.config.workers, torch.get_num_threads())
        gpus = int(model.config.device == "cuda")
        seen, in_vain = newest_checkpoint(options.run_folder), 0
        while True:
            crew = Crew(self.config, threads=threads, gpus=gpus)
            try:
                fitted: Model = crew.fit(job, options, stop)
            except (PeerLostError, RunLockedError) as error:
                found = newest_checkpoint(options.run_folder)
                seen, in_vain = found, in_vain + 1 if found == seen else 1
                if in_vain > self.config.most_restarts:
                    raise PeerLostError(
                        f"{error} The training was begun again {self.config.most_restarts} times "
                        "without getting to another checkpoint. Give the same command again when "
                        "the cluster is well."
                    ) from error
                self.lost.append(str(error))
                logger.warning("%s Training goes on from %s.", error, seen or "the start")
            else:
                return fitted
            finally:
                crew.end()
            time.sleep(0.5 * in_vain)


def newest_checkpoint(folder: Path | None) -> str:
    """The name of the newest checkpoint in a run folder; empty if there is none."""
    names = [] if folder is None else [p.name for p in folder.glob("checkpoints/step-*")]
    return max(names, default="")
