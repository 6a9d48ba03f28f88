"""RecBole's SASRec for `peers.py`; runs in an environment that has RecBole and not nextbuy.

SASRec with RecBole's own defaults: width 64, 2 blocks, 2 heads, dropout .5, cross-entropy over the
whole catalog, batches of 2,048 beginnings of histories, Adam at .001. It gets the purchases of
seen.csv, of which it keeps the last of each user for validation; its validation does not leave out
what was seen, its offers do.

With a fourth argument it is trained until NDCG@10 on validation has not risen for ten epochs, or
until so many seconds of fitting are over. The offers are then those of the best epoch; `seconds` is
the training until the end of it, without the validations, and `curve` tells each epoch.
"""

import contextlib
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

warnings.filterwarnings("ignore")


class _TimeIsUp(Exception):  # noqa: N818  (a signal to end training, no error)
    """The seconds are over."""


class TimedTrainer(Trainer):
    """Tells how long training took, validation left out, and keeps the best weights in memory."""

    trained = 0.0
    best: dict[str, torch.Tensor] | None = None

    def _train_epoch(self, *arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        loss = super()._train_epoch(*arguments, **named)
        self.trained += time.perf_counter() - started
        return loss

    def until_best(self, train: Any, validation: Any, limit: float) -> list[dict[str, float]]:
        """Train until validation stops rising; each epoch's score and the training until then."""
        curve: list[dict[str, float]] = []
        started = time.perf_counter()

        def after_epoch(epoch: int, score: float) -> None:
            if not curve or score > max(found["validation_ndcg@10"] for found in curve):
                self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
            curve.append({"validation_ndcg@10": score, "seconds": round(self.trained, 1)})
            print(f"epoch {epoch}: {curve[-1]}", file=sys.stderr, flush=True)
            if time.perf_counter() - started > limit:
                raise _TimeIsUp

        with contextlib.suppress(_TimeIsUp):
            self.fit(train, validation, verbose=False, saved=False, callback_fn=after_epoch)
        if self.best is not None:
            self.model.load_state_dict(self.best)
        return curve


def prepared(name: str, users: int | None = None) -> tuple[Config, Any, Any, Any]:
    """Config, dataset, and the loaders of training and validation."""
    table = pd.read_csv(FOLDER / "seen.csv")
    if users is not None:
        table = table[table["user_id"] <= users]
    table.columns = ["user_id:token", "item_id:token", "position:float"]
    (FOLDER / name).mkdir(exist_ok=True)
    table.to_csv(FOLDER / name / f"{name}.inter", sep="\t", index=False)
    config = Config(model="SASRec", dataset=name, config_dict={
        "data_path": str(FOLDER), "checkpoint_dir": str(FOLDER), "use_gpu": False,
        "load_col": {"inter": ["user_id", "item_id", "position"]}, "TIME_FIELD": "position",
        "MAX_ITEM_LIST_LENGTH": LONGEST, "train_neg_sample_args": None, "epochs": EPOCHS,
        "eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "mode": "full"},
        "metrics": ["NDCG"], "valid_metric": "NDCG@10", "show_progress": False,
    })  # fmt: skip
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, validation, _ = data_preparation(config, dataset)
    return config, dataset, train, validation


def offers_of(model: SASRec, dataset: Any) -> pd.DataFrame:
    """Ten items for each user of seen.csv that the user has not had."""
    seen = pd.read_csv(FOLDER / "seen.csv", dtype=str).groupby("user_id", sort=False)["item_id"]
    histories = [(user, dataset.token2id("item_id", items.to_numpy())) for user, items in seen]
    names = dataset.field2id_token["item_id"]
    model.eval()
    found = []
    for start in range(0, len(histories), 1024):
        part = histories[start : start + 1024]
        lengths = [min(len(items), LONGEST) for _, items in part]
        grid = np.zeros((len(part), LONGEST), dtype=np.int64)
        for row, ((_, items), length) in enumerate(zip(part, lengths, strict=True)):
            grid[row, :length] = items[-length:]
        asked = {"item_id_list": torch.from_numpy(grid), "item_length": torch.tensor(lengths)}
        with torch.no_grad():
            scores = model.full_sort_predict(Interaction(asked))
        scores[:, 0] = -torch.inf
        for row, (_, items) in enumerate(part):
            scores[row, items] = -torch.inf
        found.append(scores.topk(10, dim=1).indices.numpy())
    offers = {
        "user_id": np.repeat([user for user, _ in histories], 10),
        "item_id": names[np.concatenate(found).ravel()],
        "rank": np.tile(np.arange(1, 11), len(histories)),
    }
    return pd.DataFrame(offers)


def main() -> None:
    os.chdir(FOLDER)  # RecBole writes logs to where it is
    config, _, train, _ = prepared("few", users=200)
    config["epochs"] = 1
    Trainer(config, SASRec(config, train.dataset)).fit(train, verbose=False, saved=False)
    config, dataset, train, validation = prepared("log")
    model = SASRec(config, train.dataset)
    trainer = TimedTrainer(config, model)
    facts: dict[str, Any] = {}
    started = time.perf_counter()
    if LIMIT is None:
        trainer.fit(train, verbose=False, saved=False)
        seconds, epochs = time.perf_counter() - started, EPOCHS
    else:
        curve = trainer.until_best(train, validation, LIMIT)
        epochs = 1 + int(np.argmax([found["validation_ndcg@10"] for found in curve]))
        seconds = curve[epochs - 1]["seconds"]
        facts = {"best_epoch": epochs, "epochs_trained": len(curve), "curve": curve}
    offers_of(model, dataset).to_csv(FOLDER / "offers.csv", index=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    facts |= {"seconds": round(seconds, 1), "targets": epochs * len(train.dataset),
              "peak_memory_mib": peak}  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    FOLDER, LONGEST, EPOCHS = Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3])
    LIMIT = float(sys.argv[4]) if len(sys.argv) > 4 else None
    main()
