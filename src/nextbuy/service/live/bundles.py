"""The live model: a folder of bundle versions, the store's purchases since, and the answers."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, Self

import polars as pl

from nextbuy import storage
from nextbuy.errors import BundleError, ConfigError, DamagedError, ModelUnavailableError
from nextbuy.predictor.audience import AudienceRequest, audience_table
from nextbuy.predictor.forecasting import next_item_costs
from nextbuy.predictor.timing_fit import forecaster_and_end
from nextbuy.service.live.answering import Asked, answer_all, try_out
from nextbuy.service.live.batching import Batcher
from nextbuy.service.live.beside import ModelBeside
from nextbuy.service.live.card import model_card
from nextbuy.service.live.everybody import everybody
from nextbuy.service.live.joining import for_when
from nextbuy.service.live.loaded import LoadedBundle
from nextbuy.service.live.paging import HistoryPage, Place, bounds, place_of
from nextbuy.service.live.protocol import Answer, Question
from nextbuy.service.live.users import CACHED_USERS, KnownUsers, history_of
from nextbuy.service.store.protocol import Store, StoredPurchase
from nextbuy.timing.forecaster import ForecastOptions

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LATEST: Final = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How much is worked on and kept.

    Attributes:
        questions_at_once: Most that are worked on together.
        questions_waiting: Most that wait for it.
        share: Most of one caller in a batch, while others wait.
        cached_users: Histories that are kept in memory.
        beside: Whether the model has a process of its own, see `ModelBeside`.
    """

    questions_at_once: int = 128
    questions_waiting: int = 2_048
    share: int = 32
    cached_users: int = CACHED_USERS
    beside: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Current:
    """What answers now."""

    loaded: LoadedBundle
    users: KnownUsers
    beside: ModelBeside | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Job:
    """One question, and the version that was current when it was asked."""

    current: _Current
    question: Question


def now() -> int:
    """UTC microseconds."""
    return time.time_ns() // 1_000


class LiveBundles:
    """Implements `LiveModel`.

    Args:
        directory: Folder that `nextbuy train --out` wrote, or will write: `versions/NNNNNN`.
        store: Of the purchases since.
        clock: UTC microseconds now.
        options: How much is worked on and kept.
    """

    def __init__(
        self,
        directory: Path,
        store: Store,
        *,
        clock: Callable[[], int] = now,
        options: LiveOptions | None = None,
    ) -> None:
        self._directory, self._store, self._clock = directory, store, clock
        self._options = options or LiveOptions()
        self._current: _Current | None = None
        self._changes = Lock()
        self._swaps = Lock()
        self._batcher = Batcher[_Job, Answer](
            self._answers,
            most_at_once=self._options.questions_at_once,
            most_waiting=self._options.questions_waiting,
            share=self._options.share,
            looks_ahead=lambda: self.is_beside,
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        store: Store,
        *,
        clock: Callable[[], int] = now,
        options: LiveOptions | None = None,
    ) -> Self:
        """With the newest version loaded, if there is any.

        Raises:
            BundleError: If the newest version is damaged.
        """
        live = cls(directory, store, clock=clock, options=options)
        if (directory / "versions" / storage.LATEST).exists():
            try:
                live._swap(_LATEST)
            except BundleError as error:
                raise BundleError(
                    f"{error} Let the version before it answer with 'nextbuy update {directory} "
                    "--rollback', or train anew."
                ) from error
        return live

    @property
    def version(self) -> str | None:
        """See `LiveModel.version`."""
        current = self._current
        return None if current is None else current.loaded.version

    @property
    def loaded(self) -> LoadedBundle | None:
        """The bundle that answers; None if there is none."""
        current = self._current
        return None if current is None else current.loaded

    async def predict(self, questions: Sequence[Question]) -> list[Answer]:
        """See `LiveModel.predict`; all answers of a call come from one version."""
        current = self._found()
        for question in questions:
            _check(question, current.loaded)
        return await self._batcher.results(
            [_Job(current=current, question=question) for question in questions]
        )

    def forecast(
        self, user_ids: Sequence[str], *, as_of: int | None = None, horizon_days: int = 90
    ) -> tuple[pl.DataFrame, str]:
        """See `LiveModel.forecast`; without a moment days count from now."""
        current = self._found()
        loaded = current.loaded
        forecaster, _ = forecaster_and_end(
            loaded.predictor.forecaster, loaded.predictor.facts, "forecast"
        )
        known, _ = current.users.of(user_ids)
        histories = loaded.histories(user_ids, [for_when(history.whole) for history in known])
        listed = loaded.histories(user_ids, [history.whole.listed() for history in known])
        moment = self._clock() if as_of is None else as_of
        options = ForecastOptions(horizon_days=horizon_days)
        costs = next_item_costs(forecaster, loaded.model, listed, moment)
        return forecaster.table(histories, moment, options, next_item=costs), loaded.version

    def audience(
        self,
        request: AudienceRequest,
        *,
        as_of: int | None = None,
        progress: Callable[[float], None] = lambda _: None,
    ) -> tuple[pl.DataFrame, str]:
        """See `LiveModel.audience`; without a moment days count from now."""
        current = self._found()
        loaded = current.loaded
        predictor = loaded.predictor
        forecaster, _ = forecaster_and_end(predictor.forecaster, predictor.facts, "name audiences")
        progress(0.0)
        everyone = everybody(current.users, self._store)
        table = audience_table(
            request, model=loaded.model, forecaster=everyone.forecaster(forecaster),
            facts=predictor.facts, catalog=predictor.catalog, histories=everyone.histories,
            as_of=self._clock() if as_of is None else as_of, progress=progress,
        )  # fmt: skip
        return table, loaded.version

    def history(self, user_id: str, most: int, before: Place | None = None) -> HistoryPage:
        """See `LiveModel.history`; what the catalog lacks of the bundle's part has no name."""
        current = self._current
        if current is None:
            live = self._store.purchases_of([user_id]).get(user_id, ())
            return _page(None, user_id, live, most, before)
        return _page(current, user_id, current.users.live_purchases(user_id), most, before)

    def bought(self, purchases: Sequence[StoredPurchase]) -> None:
        """See `LiveModel.bought`."""
        with self._changes:
            if self._current is not None:
                self._current.users.bought(purchases)

    def forget(self, user_id: str) -> None:
        """See `LiveModel.forget`."""
        with self._changes:
            if self._current is not None:
                self._current.users.forget(user_id)

    def swap(self, name: str) -> str:
        """See `LiveModel.swap`; whoever asks need not learn where the folder lies, so what is said
        of files names them inside of it."""
        try:
            return self._swap(name)
        except BundleError as error:
            logger.warning("version %s was refused, %s stays: %s", name, self.version, error)
            raise BundleError(_inside(str(error), self._directory)) from error

    def _swap(self, name: str) -> str:
        with self._swaps:
            folder = self._folder_of(name)
            loaded = LoadedBundle.load(folder, self._store.identity())
            try_out(loaded, self._clock())
            with self._changes:
                old = self._current
                users = KnownUsers(
                    loaded, self._store, self._store.forgotten(), self._options.cached_users
                )
                beside = ModelBeside(folder) if self._options.beside else None
                self._current = _Current(loaded=loaded, users=users, beside=beside)
            if old is not None and old.beside is not None:
                old.beside.close()  # whoever still asks the old version is answered from here
            logger.info("version %s of %s answers", loaded.version, self._directory)
        return loaded.version

    def facts(self) -> dict[str, object]:
        """See `LiveModel.facts`."""
        current = self._current
        return {"version": None} if current is None else model_card(current.loaded)

    def close(self) -> None:
        """Finish what is being worked on."""
        self._batcher.close()
        current = self._current
        if current is not None and current.beside is not None:
            current.beside.close()

    @property
    def is_beside(self) -> bool:
        """Whether the model works in another process."""
        current = self._current
        return current is not None and current.beside is not None and current.beside.is_ready

    def _found(self) -> _Current:
        current = self._current
        if current is None:
            raise ModelUnavailableError(
                "No bundle is loaded. Train one into the folder that is served, and swap to it."
            )
        return current

    def _folder_of(self, name: str) -> Path:
        versions = self._directory / "versions"
        if name == _LATEST:
            try:
                found = storage.latest(versions)
            except DamagedError as error:
                raise BundleError(str(error)) from error
            if found is None:
                raise BundleError("There is no bundle in the folder that is served.")
            name = found
        folder = versions / name
        if not _NAME.fullmatch(name) or folder.resolve().parent != versions.resolve():
            raise BundleError(
                f"{name[:80]!r} names no version: use 1 to 64 of a-z, 0-9, '.', '-', '_', "
                "beginning with a letter or digit."
            )
        if not folder.is_dir():
            raise BundleError(f"There is no version {name} in the folder that is served.")
        return folder

    def _answers(self, jobs: Sequence[_Job]) -> list[Answer]:
        """Of one batch, in the thread of the worker."""
        moment = self._clock()
        groups: dict[int, list[int]] = {}
        for place, job in enumerate(jobs):
            groups.setdefault(id(job.current), []).append(place)
        found: dict[int, Answer] = {}
        for places in groups.values():
            current = jobs[places[0]].current
            asked = _asked(current, [jobs[place].question for place in places], moment)
            found |= zip(places, answer_all(current.loaded, asked, current.beside), strict=True)
        return [found[place] for place in range(len(jobs))]


def _inside(text: str, directory: Path) -> str:
    """The same with paths of versions as they are inside of a folder."""
    for folder in (directory.resolve(), directory):
        text = text.replace(str(folder / "versions"), "versions")
    return text


def _check(question: Question, loaded: LoadedBundle) -> None:
    if question.k < 1:
        raise ConfigError(f"k is the number of offers; asked for {question.k}, it starts at 1.")
    if question.as_of is not None and not loaded.has_dates:
        raise ConfigError(
            f"A moment was asked of the bundle {loaded.version}, whose time is only an order of "
            "purchases. Leave as_of out."
        )


def _page(
    current: _Current | None,
    user_id: str,
    live: Sequence[StoredPurchase],
    most: int,
    before: Place | None,
) -> HistoryPage:
    """The bundle's purchases, if there is one, and the live ones, by time; where the bundle has
    only an order, live ones come after it."""
    loaded = None if current is None else current.loaded
    rows = None if current is None else current.users.stored_rows(user_id).listed()
    is_after = loaded is not None and not loaded.has_dates
    moments = [] if rows is None else [(False, time) for time in rows.times.tolist()]
    num_stored = len(moments)
    moments += [(is_after, each.purchase.timestamp) for each in live]
    order = sorted(range(len(moments)), key=moments.__getitem__)
    moments.sort()
    start, end = bounds(moments, most, before)
    found = [
        live[place - num_stored]
        if loaded is None or rows is None or place >= num_stored
        else StoredPurchase(
            sequence=0, received=0, purchase=loaded.purchase_at(user_id, rows, place)
        )
        for place in order[start:end]
    ]
    return HistoryPage(
        purchases=found,
        total=len(moments),
        older=place_of(moments, start),
        version=None if loaded is None else loaded.version,
    )


def _asked(current: _Current, questions: Sequence[Question], moment: int) -> list[Asked]:
    loaded = current.loaded
    by_id = [q.user_id for q in questions if q.history is None and q.user_id is not None]
    known, sequence = current.users.of(by_id)
    looked_up = dict(zip(by_id, known, strict=True))
    nothing = loaded.stored_rows(None)
    asked = []
    for question in questions:
        if question.history is not None:
            history = history_of(nothing, question.history, loaded)
        elif question.user_id is not None:
            history = looked_up[question.user_id]
        else:
            history = history_of(nothing, (), loaded)
        as_of = None
        if question.as_of is not None:
            as_of = question.as_of
            history = history.before(as_of)
        elif loaded.has_dates:
            times = history.whole.times
            as_of = max(moment, int(times[-1]) + 1) if len(times) else moment
        asked.append(
            Asked(question=question, history=history, as_of=as_of, after_sequence=sequence)
        )
    return asked
