"""RePlay's SASRec for `peers.py`; runs in an environment that has RePlay and not nextbuy.

The block-based SASRec of `replay.nn` with its own defaults but for the sizes that everybody has
(width 64, 2 blocks, 1 head), batches of 128 as RecTools has them, and its sampled softmax: the
target against 1,024 uniform negatives that the batch shares. Its default loss scores the whole
catalog at every position, padding included.
"""

import json
import logging
import os
import resource
import sys
import time
import warnings
from pathlib import Path

import lightning
import pandas as pd
import torch
from replay.data import FeatureHint, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorSchema
from replay.data.nn.utils import groupby_sequences
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import PandasTopItemsCallback
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.loss import CESampled
from replay.nn.sequential import SasRec
from replay.nn.transform import UniformNegativeSamplingTransform
from replay.nn.transform.template import make_default_sasrec_transforms

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
WIDTH, ROWS, NEGATIVES = 64, 128, 1024


def sequences(name: str, codes: dict[int, int], users: int | None = None) -> Path:
    """A file with the items of each user in order, as RePlay reads it."""
    table = pd.read_csv(FOLDER / f"{name}.csv")
    if users is not None:
        table = table[table["user_id"] <= users]
    table["item_id"] = table["item_id"].map(codes)
    table = table.dropna().astype("int64")
    events = groupby_sequences(events=table, groupby_col="user_id", sort_col="position")
    events["seen"] = events["item_id"]
    path = FOLDER / f"{name}_{users}.parquet"
    events[["user_id", "item_id", "seen"]].to_parquet(path)
    return path


def schema_of(num_items: int) -> TensorSchema:
    return TensorSchema([
        TensorFeatureInfo(
            name="item_id", is_seq=True, padding_value=num_items, cardinality=num_items,
            embedding_dim=WIDTH, feature_type=FeatureType.CATEGORICAL,
            feature_hint=FeatureHint.ITEM_ID,
        )
    ])  # fmt: skip


def batches(schema: TensorSchema, longest_seen: int, **paths: str) -> ParquetModule:
    num_items = schema["item_id"].cardinality
    transforms = make_default_sasrec_transforms(schema)
    transforms["train"].append(UniformNegativeSamplingTransform(num_items, NEGATIVES))
    item = {"padding": num_items}
    metadata = {
        "train": {"item_id": item | {"shape": LONGEST + 1}},
        "predict": {
            "user_id": {},
            "item_id": item | {"shape": LONGEST},
            "seen": item | {"shape": longest_seen},
        },
    }
    return ParquetModule(ROWS, metadata, transforms, **paths)


def trainer(epochs: int, *callbacks: lightning.Callback) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
        callbacks=list(callbacks),
    )  # fmt: skip


def fitted(schema: TensorSchema, train: Path, epochs: int) -> LightningModule:
    network = SasRec.from_params(
        schema=schema, embedding_dim=WIDTH, max_sequence_length=LONGEST, num_heads=1, num_blocks=2
    )
    network.loss = CESampled()
    network.loss.logits_callback = network.get_logits
    model = LightningModule(network)
    trainer(epochs).fit(model, datamodule=batches(schema, 1, train_path=str(train)))
    return model


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    table = pd.read_csv(FOLDER / "train.csv")
    names = sorted(table["item_id"].unique())
    codes = {name: code for code, name in enumerate(names)}
    schema = schema_of(len(names))
    fitted(schema, sequences("train", codes, users=200), 1)
    train, seen = sequences("train", codes), sequences("seen", codes)
    started = time.perf_counter()
    model = fitted(schema, train, EPOCHS)
    seconds = time.perf_counter() - started
    best = PandasTopItemsCallback(
        top_k=10, query_column="user_id", item_column="item_id", rating_column="score",
        postprocessors=[SeenItemsFilter(len(names), "seen")],
    )  # fmt: skip
    longest_seen = int(pd.read_parquet(seen)["seen"].map(len).max())
    asked = batches(schema, longest_seen, predict_path=str(seen))
    trainer(1, best).predict(model, datamodule=asked, return_predictions=False)
    offers = best.get_result()
    offers["item_id"] = [names[code] for code in offers["item_id"]]
    offers["rank"] = offers.groupby("user_id").cumcount() + 1
    offers[["user_id", "item_id", "rank"]].to_csv(FOLDER / "offers.csv", index=False)
    lengths = table["user_id"].value_counts().clip(upper=LONGEST + 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    targets = int(EPOCHS * (lengths - 1).sum())
    print(json.dumps({"seconds": round(seconds, 1), "targets": targets, "peak_memory_mib": peak}))


if __name__ == "__main__":
    FOLDER, LONGEST, EPOCHS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    main()
