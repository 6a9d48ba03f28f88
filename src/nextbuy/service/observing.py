"""Keeps a share of the answers, and now and then compares them with what was bought."""

import logging
from collections.abc import Callable, Sequence

from nextbuy.data.histories import DAY
from nextbuy.errors import ModelUnavailableError, StoreError
from nextbuy.service.live.bundles import LiveBundles
from nextbuy.service.live.protocol import Answer
from nextbuy.service.store.protocol import ServedOffer, Store
from nextbuy.service.watching.quality import LiveQuality, live_quality
from nextbuy.service.watching.served_log import ServedLog, ServedLogConfig
from nextbuy.service.watching.watcher import Watcher

logger = logging.getLogger(__name__)


class Observing:
    """The log of answers and the watcher, over one store.

    Args:
        store: Of answers and purchases.
        live: Whose answers they are.
        clock: UTC microseconds.
        share: Of the answers that are kept, 0 to 1.
        seconds: From one comparison to the next.
        days: How long answers are kept in the store.
    """

    def __init__(
        self,
        store: Store,
        live: LiveBundles,
        clock: Callable[[], int],
        *,
        share: float,
        seconds: float,
        days: float,
    ) -> None:
        self._store, self._live, self._clock = store, live, clock
        self._kept = round(days * DAY)
        self._log = ServedLog(store, ServedLogConfig(rate=share))
        self._watcher = Watcher(self._compute, seconds=seconds)
        self._watcher.start()

    def answered(self, answers: Sequence[Answer]) -> None:
        """Keep a share of answers for users by id; never blocks."""
        served = self._clock()
        for answer in answers:
            if answer.user_id is not None and answer.offers:
                self._log.add(
                    ServedOffer(
                        served=served,
                        version=answer.version,
                        user_id=answer.user_id,
                        items=tuple((offer.item_id, offer.platform) for offer in answer.offers),
                        probabilities=tuple(offer.probability for offer in answer.offers),
                        after_sequence=answer.after_sequence,
                    )
                )

    def forget(self, user_id: str) -> None:
        """Nothing of a user that still waits reaches the store."""
        self._log.forget(user_id)

    def latest(self) -> LiveQuality | None:
        """The newest comparison; None while there is none."""
        return self._watcher.latest

    def close(self) -> None:
        """Write what waits, and stop."""
        self._watcher.stop(timeout=1.0)
        self._log.close(timeout=1.0)

    def _compute(self) -> LiveQuality:
        self._prune()
        loaded = self._live.loaded
        if loaded is None:
            raise ModelUnavailableError("No bundle is loaded.")
        return live_quality(
            self._store,
            loaded.predictor.facts,
            loaded.predictor.catalog,
            now=self._clock(),
            index_of=loaded.reading.lookup.index_of,
            is_known_user=lambda user: loaded.place_of(user) is not None,
        )

    def _prune(self) -> None:
        """Delete the answers that are too old to be judged; next time, if the store is away."""
        try:
            num_deleted = self._store.prune_served(self._clock() - self._kept)
        except StoreError as error:
            logger.warning("Old answers stay in the store for now: %s", error)
        else:
            if num_deleted:
                logger.info("%d old answers were deleted", num_deleted)
