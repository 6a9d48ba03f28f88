"""Train a challenger on the newest log, and let it take over only if it is not worse.

The champion is what `LATEST` names. It may have learnt from everything up to its last purchase, so
the two are compared on what was bought later, which neither has learnt from; the challenger learns
from what lies before that, as the champion did. An incremental challenger goes on from the
champion's networks, which know all that lies before: it chooses on the older half of what was
bought later, learns it, and the two are compared on the newer half.

Each challenger is published as a version of its own, which never changes; `LATEST` moves to it in
one step, or stays. A kill at any moment leaves `LATEST` at a whole version.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from nextbuy import storage
from nextbuy.data.options import ReadOptions
from nextbuy.errors import BundleError, ConfigError, DamagedError, SplitError
from nextbuy.predictor import Predictor
from nextbuy.predictor.learning import read_and_split
from nextbuy.progress import Progress, SilentProgress
from nextbuy.service.store.log import SEQUENCE_FACT, STORE_FACT
from nextbuy.service.store.protocol import Store
from nextbuy.service.watching.promotion import (
    Comparison,
    PromotionConfig,
    compare_bundles,
    too_few,
    why_not,
)
from nextbuy.service.watching.whole_log import whole_log

_UPDATE: Final = "update"
"""Key of `run.json` under which a challenger's version says what became of it."""

_GONE_ON: Final = " Networks went on from those of version {}."


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLog:
    """The champion's histories and the purchases of a store: see `whole_log`.

    Attributes:
        name: As the user called it, without passwords.
        store: Is read only.
    """

    name: str
    store: Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What came of an update.

    Attributes:
        champion: Version that answered before.
        challenger: Version that was published; None where there was too little to compare on, and
            nothing was trained.
        promoted: Whether the challenger answers from now on.
        reason: Why it does, or does not, in one sentence.
        comparison: Both on the same cases; None where nothing was trained.
    """

    champion: str
    challenger: str | None
    promoted: bool
    reason: str
    comparison: Comparison | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "champion": self.champion,
            "challenger": self.challenger,
            "promoted": self.promoted,
            "reason": self.reason,
            "comparison": self.comparison and self.comparison.as_dict(),
        }


def update(
    directory: Path,
    data: Any,
    *,
    config: PromotionConfig | None = None,
    options: ReadOptions | None = None,
    progress: Progress | None = None,
    incremental: bool = False,
) -> Update:
    """Fit the champion's config on a log, compare, publish, and promote what is not worse.

    Args:
        directory: With `versions/LATEST`.
        data: The newest log, all of it: what the champion learnt from, and what came later; or a
            `LiveLog`, which joins the two.
        config: What counts as not worse.
        options: How to read the data; as the champion's log was read if not told.
        progress: Told about the long parts.
        incremental: Networks go on from the champion's and learn what was bought since; without it
            they learn all anew.

    Raises:
        BundleError: If there is no champion.
        ConfigError: If its time is only an order: then nothing is later.
        NextbuyError: As `Predictor.fit` does.
    """
    config, progress = config or PromotionConfig(), progress or SilentProgress()
    name = current_version(directory)
    champion = _champion(directory / "versions" / name)
    facts: dict[str, Any] = {}
    if isinstance(data, LiveLog):
        data, options, facts = _joined(champion, data)
    options = options or champion.read_options()
    last = int(champion.histories.times.max())
    try:
        source, encoded, split = read_and_split(
            data, champion.config, options, None, progress, after=last, learnt=incremental
        )
    except SplitError as error:
        return _nothing(name, f"the log has too little after the champion's last purchase. {error}")
    fewest = min(len(split.test), len(split.validation)) if incremental else len(split.test)
    if fewest < config.fewest_cases:
        return _nothing(name, too_few(fewest, config))
    found: list[Comparison] = []

    def compare(challenger: Predictor) -> None:
        progress.about("champion and challenger")
        seed, cases = champion.config.seed, split.test
        found.append(compare_bundles(champion, challenger, cases, seed=seed, progress=progress))

    challenger = Predictor.fit_split(
        source, encoded, split, config=champion.config, options=options, progress=progress,
        scored=compare, champion=champion if incremental else None,
    )  # fmt: skip
    challenger.facts |= facts
    if incremental:
        challenger.facts["protocol"]["description"] += _GONE_ON.format(name)
    return _published(directory, challenger, name, found[0], why_not(found[0], config))


def _champion(folder: Path) -> Predictor:
    champion = Predictor.load(folder)
    if champion.histories.time_kind != "dates":
        raise ConfigError(
            "An update compares on what was bought after the champion's last purchase, and this "
            "bundle's log has only an order of purchases. Train anew with: nextbuy train"
        )
    return champion


def _joined(champion: Predictor, log: LiveLog) -> tuple[pl.DataFrame, ReadOptions, dict[str, Any]]:
    """The champion's histories with a store, how to read them, and what is to be kept of that."""
    whole = whole_log(champion, log.store)
    facts = {
        "source": log.name,
        STORE_FACT: log.store.identity(),
        SEQUENCE_FACT: whole.store_sequence,
        "read_options": champion.facts["read_options"],  # of files that are read later
    }
    return whole.frame, whole.options, facts


def _published(
    directory: Path, challenger: Predictor, champion: str, found: Comparison, reason: str | None
) -> Update:
    """Publish the challenger, and promote it unless there is a reason not to."""
    now = current_version(directory)
    if reason is None and now != champion:
        reason = f"version {now} has taken over meanwhile, which it was not compared with"
    kept = {"champion": champion, "promoted": reason is None, "comparison": found.as_dict()}
    published = challenger.save(directory, latest=False, run={_UPDATE: kept})
    if reason is None:
        storage.point_latest(directory / "versions", published.name)
    return Update(
        champion=champion,
        challenger=published.name,
        promoted=reason is None,
        reason=reason or "it is not worse, within the tolerances",
        comparison=found,
    )


def rollback(directory: Path) -> tuple[str, str]:
    """Let the version answer that answered before the present one.

    That is the champion which the present version took over from; for a version that `train`
    published, the newest older one that was trained or promoted.

    Returns:
        The version that answered, and the one that answers now.

    Raises:
        BundleError: If there is no bundle, or the version before is damaged.
        ConfigError: If there is no version before.
    """
    name = current_version(directory)
    versions = directory / "versions"
    before = _told(versions / name).get("champion") or _before(versions, name)
    if before is None:
        raise ConfigError(f"Version {name} in {directory} is the first: there is none before it.")
    try:
        storage.verify(versions / storage.check_name(str(before)))
    except DamagedError as error:
        raise BundleError(f"Version {before} cannot be gone back to. {error}") from error
    storage.point_latest(versions, str(before))
    return name, str(before)


def current_version(directory: Path) -> str:
    """The version that `LATEST` names.

    Raises:
        BundleError: If there is none.
    """
    try:
        name = storage.latest(directory / "versions")
    except DamagedError as error:
        raise BundleError(f"{directory} names no version: {error}") from error
    if name is None:
        raise BundleError(
            f"There is no bundle in {directory}: no versions/{storage.LATEST}. "
            f"Make one with: nextbuy train DATA --out {directory}"
        )
    return name


def _nothing(champion: str, reason: str) -> Update:
    return Update(
        champion=champion, challenger=None, promoted=False, reason=reason, comparison=None
    )


def _before(versions: Path, name: str) -> str | None:
    """The newest older version that was trained or promoted."""
    older = [p.name for p in versions.glob("[0-9]*") if p.name.isdigit() and p.name < name]
    fit = (o for o in sorted(older, reverse=True) if _told(versions / o).get("promoted", True))
    return next(fit, None)


def _told(version: Path) -> dict[str, Any]:
    """What a version says of the update that made it; empty for one that `train` made."""
    path = version / "run.json"
    run = storage.read_json(path) if path.exists() else {}
    told = run.get(_UPDATE) if isinstance(run, dict) else None
    return told if isinstance(told, dict) else {}
