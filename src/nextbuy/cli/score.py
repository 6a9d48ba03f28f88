"""`nextbuy score DIR --out FOLDER`: offers for everybody, as Parquet files."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextbuy.cli import options
from nextbuy.cli.clusters import on_cluster, scoring_of
from nextbuy.cli.rendering import ProgressBar, print_json, print_line, print_note
from nextbuy.cli.tables import read_ids

if TYPE_CHECKING:
    from nextbuy.data.histories import Histories
    from nextbuy.predictor import Predictor


@options.reads_data
def score(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder that train wrote.", metavar="DIR")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the Parquet files.")],
    user_ids: Annotated[
        Path | None,
        typer.Option("--user-ids", help="A file of user ids: .csv, .parquet or one a line."),
    ] = None,
    history: Annotated[
        str | None, typer.Option("--history", help="A file of purchases of any users.")
    ] = None,
    k: options.K = 10,
    model: Annotated[
        str | None, typer.Option("--model", help="Which model answers; default the best.")
    ] = None,
    rules: options.RulesFile = None,
    cluster: options.Cluster = None,
    workers: options.Workers = 2,
    json: options.Json = False,
    read: options.DataFlags,
) -> None:
    """Write the most probable next purchases of everybody, or of many, as Parquet files.

    A run that was stopped goes on when the same command is given again.
    """
    from nextbuy.bundle import content_hash, version_folder
    from nextbuy.errors import ConfigError
    from nextbuy.predictor import Predictor
    from nextbuy.predictor.everybody import BlockScorer, ScoreRequest, score_everybody

    if user_ids and history:
        raise ConfigError("Say who: --user-ids FILE or --history FILE, not both.")
    followed = options.read_rules(rules)
    with on_cluster(cluster, workers) as found:
        version = version_folder(directory)
        predictor = Predictor.load(version)
        who = _asked(predictor, user_ids, history, read)
        request = ScoreRequest(k=k, model=model, rules=followed)
        with ProgressBar() as progress:
            scored = score_everybody(
                BlockScorer.of(predictor, who, request), out, bundle_hash=content_hash(version),
                scoring=scoring_of(found), progress=progress,
            )  # fmt: skip
    if json:
        print_json({"out": str(out), "model": predictor.named_model(model)} | asdict(scored))
        return
    print_line(f"{scored.rows:,} offers to {scored.users:,} users: {out}/*.parquet")
    if scored.resumed:
        print_line(f"{scored.resumed} of {scored.parts} files were there already")


def _asked(
    predictor: "Predictor", user_ids: Path | None, history: str | None, read: options.DataFlags
) -> "Histories":
    """Whom it is about; everybody in the bundle if not told."""
    if history is not None:
        asked = read.options() if read.any_given() else None
        who, num_left_out = predictor.encode_histories(history, asked)
        if num_left_out:
            print_note(f"{num_left_out} purchases of items that the bundle does not know: ignored")
        return who
    if user_ids is None:
        return predictor.histories
    ids = sorted(read_ids(user_ids))
    known = set(predictor.histories.user_ids)
    if unknown := sum(one not in known for one in ids):
        print_note(f"{unknown} users are not in the training log: predicted without a history")
    return predictor.histories_of(ids)
