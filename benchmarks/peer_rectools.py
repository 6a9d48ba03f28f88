"""RecTools' SASRec for `peers.py`; runs in an environment that has RecTools and not nextbuy.

SASRec with its own defaults but for the sizes that everybody has (width 64, 2 blocks, 1 head) and a
sampled softmax with 256 negatives, which its authors recommend over one negative.
"""

import json
import resource
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

warnings.filterwarnings("ignore")


def trainer() -> Trainer:
    return Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip


def sasrec() -> SASRecModel:
    return SASRecModel(
        n_blocks=2, n_heads=1, n_factors=64, session_max_len=LONGEST, loss="sampled_softmax",
        n_negatives=256, epochs=EPOCHS, get_trainer_func=trainer,
    )  # fmt: skip


def dataset(folder: Path, name: str, users: int | None = None) -> Dataset:
    table = pd.read_csv(folder / f"{name}.csv")
    if users is not None:
        table = table[table["user_id"] <= users]
    table[Columns.Datetime] = pd.to_datetime(table.pop("position"), unit="s")
    table[Columns.Weight] = 1.0
    return Dataset.construct(table)


def main() -> None:
    torch.manual_seed(0)
    train, seen = dataset(FOLDER, "train"), dataset(FOLDER, "seen")
    sasrec().fit(dataset(FOLDER, "train", users=200))
    model = sasrec()
    started = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - started
    lengths = train.interactions.df[Columns.User].value_counts().clip(upper=LONGEST + 1)
    known = set(train.item_id_map.external_ids)
    frame = pd.read_csv(FOLDER / "seen.csv")
    users = frame[frame["item_id"].isin(known)]["user_id"].unique()
    offers = model.recommend(users, seen, k=10, filter_viewed=True, on_unsupported_targets="ignore")
    offers = offers[[Columns.User, Columns.Item, Columns.Rank]].astype("int32")
    offers.columns = ["user_id", "item_id", "rank"]
    offers.to_csv(FOLDER / "offers.csv", index=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    targets = int(EPOCHS * (lengths - 1).sum())
    print(json.dumps({"seconds": round(seconds, 1), "targets": targets, "peak_memory_mib": peak}))


if __name__ == "__main__":
    FOLDER, LONGEST, EPOCHS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    main()
