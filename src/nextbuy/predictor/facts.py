"""What a predictor knows about itself, as JSON: what was read, how it was scored, and when."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from nextbuy import __version__
from nextbuy.data.doctor import examine
from nextbuy.data.options import ReadOptions
from nextbuy.data.sources import Source
from nextbuy.data.worlds.world import World
from nextbuy.evaluation.evaluate import Evaluation
from nextbuy.predictor.config import PredictorConfig
from nextbuy.predictor.fitting import Fitted
from nextbuy.splitting.cases import Split

_OF_THE_RUN: Final = ("source", "health")  # health quotes rows with the name of their file


def apart(facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts that the data and config decide, and those that differ from run to run."""
    rows = [dict(row) for row in facts.get("leaderboard", [])]
    seconds = {row["model"]: row.pop("fit_seconds", None) for row in rows}
    run = {key: facts.get(key) for key in _OF_THE_RUN} | {"fit_seconds": seconds}
    same = {key: value for key, value in facts.items() if key not in _OF_THE_RUN}
    return same | {"leaderboard": rows}, run


def together(facts: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """What `apart` took apart; older bundles have all of it among the facts."""
    seconds = run.get("fit_seconds", {})
    rows = [
        {"fit_seconds": seconds.get(row["model"]), **row} for row in facts.get("leaderboard", [])
    ]
    told = {key: run.get(key) for key in (*_OF_THE_RUN, "created")}
    return told | dict(facts) | {"leaderboard": rows}


def results_facts(
    fitted: Fitted, split: Split, config: PredictorConfig, world: World | None
) -> dict[str, Any]:
    """How good the models are, and how that was found out."""
    return {
        "protocol": _protocol(split, config, fitted),
        "limit": None if world is None else world.limit(split.test, split.catalog),
        "leaderboard": [row.as_dict() for row in fitted.rows],
        "evaluation": {row.model: _in_detail(row.test) for row in fitted.rows},
        "blend": fitted.weights and fitted.weights.model_dump(mode="json"),
        "skipped": fitted.skipped,
        "cadence": fitted.cadence.facts,
        "scored_share": fitted.scored_share,
    }


def _in_detail(found: Evaluation) -> dict[str, Any]:
    """What a report shows of a model beside its scores."""
    return {
        "slices": found.slices,
        "gains": found.gains,
        "reliability": found.reliability.as_dict(),
    }


def _protocol(split: Split, config: PredictorConfig, fitted: Fitted) -> dict[str, Any]:
    """How the scores are obtained."""
    description = split.description
    if fitted.refitted and split.before_test is not None:
        description += (
            f" Once all was chosen, models were fitted again on the "
            f"{split.before_test.num_purchases} purchases before the test period."
        )
    return {
        "split": split.name,
        "description": description,
        "warning": split.warning,
        "level": config.level,
        "repeat": config.repeat,
        "learned_until": _learned_until(split, fitted),
        "candidates": f"all {len(split.catalog):,} items of the catalog",
    }


def _learned_until(split: Split, fitted: Fitted) -> int | None:
    """The moment that lies after all that the models have learnt from, UTC microseconds; None where
    that is another one for each user."""
    if split.name != "temporal":
        return None
    return split.test.since if fitted.refitted else split.validation.since


def source_facts(source: Source, options: ReadOptions) -> dict[str, Any]:
    """What was read, and how."""
    purchases = source.purchases
    prepared = source.prepared
    health = None if prepared else examine(purchases).as_dict()
    return {
        "source": source.name,
        "fingerprint": health["fingerprint"] if health else source.fingerprint(),
        "health": health,
        "time_kind": purchases.time_kind,
        "basket_kind": purchases.basket_kind,
        "read_options": prepared.read_facts if prepared else _read_facts(options),
        "rows": {
            "in": purchases.counts.rows_in,
            "kept": purchases.counts.kept,
            "rejected": purchases.counts.rejected,
            "duplicates": purchases.counts.duplicates,
        },
        **source.facts,
    }


def _read_facts(options: ReadOptions) -> dict[str, Any]:
    """The options that say how a log is read, as JSON; not its limits, nor a pretended present."""
    skipped = {"now", "limits"}
    return {f.name: getattr(options, f.name) for f in fields(options) if f.name not in skipped}


def versions() -> dict[str, str]:
    """Of the packages that a bundle depends on."""
    names = ("numpy", "polars", "pyarrow", "safetensors", "torch")
    return {name: importlib.metadata.version(name) for name in names} | {"nextbuy": __version__}
