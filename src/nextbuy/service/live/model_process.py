"""The model of a version in a process of its own: `python -m nextbuy.service.live.model_process
FOLDER SOCKET`, started by `beside.py`.

It reads frames from a socket that it inherited and answers each with one, `{"ready": true}` being
the first. It ends with the process that started it, for then the socket is closed.
"""

import gc
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nextbuy.data.histories import Histories
from nextbuy.errors import NextbuyError
from nextbuy.models.protocol import SearchesApart
from nextbuy.predictor import Predictor
from nextbuy.predictor.answers import Moment, found_offers
from nextbuy.service.live.following import FollowedRules
from nextbuy.service.live.frames import Arrays, receive, send
from nextbuy.splitting.repeat import RepeatPolicy
from nextbuy.splitting.rules import Rules
from nextbuy.threads import use_one_core_each


def arrays_of(histories: Histories, told: np.ndarray | None) -> Arrays:
    """Histories and the moment of each question, as `Model.answer` reads them."""
    found: dict[str, np.ndarray | None] = {
        "items": histories.items, "times": histories.times, "baskets": histories.baskets,
        "offsets": histories.offsets, "prices": histories.prices,
        "quantities": histories.quantities, "told": told,
    }  # fmt: skip
    return {name: array for name, array in found.items() if array is not None}


class Model:
    """Answers what frames ask.

    Args:
        predictor: Whose best model it is; its histories are not kept.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._model = predictor.models[predictor.best_model]
        self._catalog, self._cadence = predictor.catalog, predictor.cadence
        self._policy = RepeatPolicy.parse(predictor.config.repeat).by(predictor.cadence)
        self._time_kind = predictor.histories.time_kind
        self._followed = FollowedRules(predictor.catalog, predictor.config.rules)

    def answer(self, words: Mapping[str, Any], arrays: Arrays) -> Arrays:
        """The best offers (`items`, `values`), or what was searched; see `beside.py`."""
        told = arrays.get("told")
        histories = Histories(
            user_ids=pl.Series("user_id", [""] * (len(arrays["offsets"]) - 1), dtype=pl.String),
            items=arrays["items"],
            times=arrays["times"],
            baskets=arrays["baskets"],
            offsets=arrays["offsets"],
            prices=arrays.get("prices"),
            quantities=arrays.get("quantities"),
            time_kind=self._time_kind,
        )
        k: int = words["k"]
        text: str | None = words["rules"]
        rules = None if text is None else Rules.model_validate_json(text)
        if words["searches"]:
            if not isinstance(self._model, SearchesApart):
                raise TypeError("the model does not search apart")
            found = self._model.searcher().search(histories, told, k)
            return {
                "states": found.states, "items": found.items, "logits": found.logits,
                "log_totals": found.log_totals,
            }  # fmt: skip
        offers = [
            (items, values)
            for _, _, items, values in found_offers(
                self._model, histories, self._catalog,
                Moment(told=told, assumed=None, cadence=self._cadence),
                k=k, policy=self._policy, rules=self._followed.of(rules),
            )
        ]  # fmt: skip
        items, values = (np.concatenate(each) for each in zip(*offers, strict=True))
        return {"items": items, "values": values}


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever started it answers to these, and ends it
    folder, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    use_one_core_each()
    with socket.socket(fileno=descriptor) as pipe:
        try:
            model = Model(Predictor.load(folder))
        except NextbuyError as error:
            sys.exit(str(error))
        gc.collect()
        gc.freeze()
        send(pipe, {"ready": True}, {})
        while True:
            try:
                send(pipe, *_answered(model, *receive(pipe)))
            except (EOFError, OSError):
                return


def _answered(
    model: Model, words: Mapping[str, Any], arrays: Arrays
) -> tuple[dict[str, Any], Arrays]:
    try:
        return {}, model.answer(words, arrays)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}, {}


if __name__ == "__main__":
    _main()
