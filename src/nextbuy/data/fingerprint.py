"""One hash for one set of purchases, whatever file it came from and in whatever order."""

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextbuy import columns
from nextbuy.data.coding import code
from nextbuy.data.purchases import Purchases

_VERSION = b"nextbuy purchases 1\n"


def fingerprint(purchases: Purchases) -> str:
    """SHA-256 of the rows as a multiset, in hex; the same from CSV, Parquet, JSON, SQL or a frame.

    What is hashed is one canonical form of the log: per text column its distinct values in byte
    order, each with its length, and the rows as integers that point into them, sorted. The form can
    be read back, so two logs have one form only if they hold the same rows; beyond that the hash is
    as safe as SHA-256. Columns without any value do not count, nor do files, guesses and rejects.
    """
    frame = purchases.frame
    digest = hashlib.sha256(_VERSION + purchases.time_kind.encode())
    present = [
        name
        for name in columns.ALL
        if name in frame.columns and frame[name].null_count() < frame.height
    ]
    keys: dict[str, NDArray[np.int64]] = {}
    for name in present:
        digest.update(f"\n{name}:{frame.height}\n".encode())
        if frame.schema[name] == pl.String:
            coded = code(frame[name])
            digest.update(f"{len(coded.ids)} ids\n".encode())
            digest.update(np.asarray(coded.ids.str.len_bytes(), dtype="<i8").tobytes())
            digest.update(coded.ids.str.join("").item().encode())
            keys[name] = coded.codes.astype(np.int64)
        elif name == columns.TIME:
            keys[name] = frame[name].cast(pl.Int64).to_numpy()
        else:
            keys[name] = _bits(frame[name])
    rows = pl.DataFrame(keys).sort(present)
    for name in present:
        digest.update(np.ascontiguousarray(rows[name].to_numpy(), dtype="<i8").tobytes())
    return digest.hexdigest()


def _bits(numbers: pl.Series) -> NDArray[np.int64]:
    """The bits of floats; 0.0 for both zeros, one pattern for null."""
    values = numbers.fill_null(float("nan")).to_numpy() + 0.0
    return np.asarray(np.where(np.isnan(values), np.nan, values).view(np.int64))
