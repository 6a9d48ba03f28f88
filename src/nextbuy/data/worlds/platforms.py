"""The platforms that the worlds sell on."""

from importlib import resources

import polars as pl

from nextbuy import columns


def load_platforms() -> pl.DataFrame:
    """Columns `platform` and `category`, one row a platform, names distinct."""
    content = resources.files("nextbuy.data.worlds").joinpath("platforms.csv").read_bytes()
    return pl.read_csv(content, schema={columns.PLATFORM: pl.String, columns.CATEGORY: pl.String})
