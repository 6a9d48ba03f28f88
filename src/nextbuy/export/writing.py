"""Write a network of a bundle as an ONNX file, with its catalog and a description beside it.

The file runs in any language that has an ONNX runtime, without nextbuy:

    import json, numpy as np, onnxruntime as ort, polars as pl

    about = json.load(open("exported/export.json"))
    catalog = pl.read_parquet("exported/catalog.parquet")    # row r is item index r + 1
    index = {item: r + 1 for r, item in reversed(list(enumerate(catalog["item_id"])))}
    session = ort.InferenceSession("exported/model.onnx")
    day, now = 86_400_000_000, 1_767_225_600_000_000         # UTC microseconds
    history = [("tea", now - 30 * day), ("milk", now - 3 * day)]    # the oldest first
    answer = session.run(["top_items", "top_scores"], {
        "items": np.array([[index[item] for item, _ in history]]),
        "baskets": np.array([range(len(history))]),          # equal numbers: bought together
        "times": np.array([[time for _, time in history]]),
        "as_of": np.array([now]),
    })
    for item, score in zip(answer[0][0], answer[1][0]):
        print(catalog["item_id"][int(item) - 1], float(np.exp(score)))
"""

import copy
import hashlib
import logging
import warnings
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from nextbuy import __version__, storage
from nextbuy.data.histories import Int64
from nextbuy.errors import BundleError, ConfigError, MissingExtraError, NextbuyError
from nextbuy.export.graph import INPUTS, OUTPUTS, Exportable, ExportedNetwork
from nextbuy.export.inputs import inputs_of
from nextbuy.models.blend import BLEND
from nextbuy.models.neural import NeuralModel
from nextbuy.models.protocol import FittedModel
from nextbuy.nn.transformer import TransformerNetwork
from nextbuy.predictor import Predictor

OPSET: Final = 18
FORMAT: Final = 1
TOLERANCE: Final = 1e-4
"""Of log-probabilities, between the file and the network that it was made from."""

_MOST_BYTES: Final = 1_900_000_000
"""A protocol buffer, which an ONNX file without a second one is, ends at 2 GiB."""

_CHECKED: Final = 64
"""Histories of the bundle that the file is tried on before it is published."""

_PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        folder: Holds `model.onnx`, `catalog.parquet`, `export.json` and `manifest.json`.
        model: Name of the model that was exported.
        num_bytes: Of `model.onnx`.
        sha256: Of `model.onnx`.
        largest_difference: Of a log-probability, to those of the network itself, on histories of
            the bundle.
        num_checked: How many histories that was tried on.
    """

    folder: Path
    model: str
    num_bytes: int
    sha256: str
    largest_difference: float
    num_checked: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"folder": str(self.folder)}


def export_onnx(
    predictor: Predictor,
    folder: Path,
    *,
    model: str | None = None,
    k: int = 10,
    plain: bool = False,
) -> Exported:
    """Write the network of a predictor into a new folder, tried against the network itself.

    The file holds everything from a history to log-probabilities over the catalog: own items are
    counted inside. It does not hold the blend, the repeat policy and the rules of the bundle.

    Args:
        predictor: Fitted.
        folder: Must not be there yet; appears whole or not at all.
        model: Name of the network; the first one among the models if not told.
        k: Items that the outputs `top_items` and `top_scores` name.
        plain: Export even if the bundle has a repeat policy or rules, which the file then lacks.

    Raises:
        ConfigError: If there is no such network, it cannot be exported, or the policy or the rules
            would be lost.
        MissingExtraError: If `onnx`, `onnxscript` or `onnxruntime` is not installed.
        StorageError: If the folder is there already or the disk refuses.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package, "onnx", "nextbuy export")
    if k < 1:
        raise ConfigError(f"k is the number of items to name; asked for {k}, it starts at 1.")
    if not plain:
        _refuse_conditions(predictor)
    name, network, chosen = _network_of(predictor, model)
    if folder.exists():
        raise ConfigError(f"{folder} is there already. Name a folder that is not.")
    graph = ExportedNetwork(
        copy.deepcopy(network).cpu(),  # wherever the bundle's own answers
        groups=chosen.groups,
        longest=chosen.config.training.longest_window,
        temperature=chosen.config.temperature or 1.0,
        k=k,
    ).eval()
    has_dates = predictor.histories.time_kind == "dates"
    dated = has_dates and isinstance(network, TransformerNetwork)  # others know only an order
    found: dict[str, Any] = {}

    def write(place: Path) -> None:
        _write_graph(graph, place / "model.onnx", dated=dated, model=name)
        predictor.catalog.save(place / "catalog.parquet")
        found.update(_tried(predictor, chosen, place / "model.onnx"))
        hashes = {file: _sha256(place / file) for file in ("model.onnx", "catalog.parquet")}
        found.update(sha256=hashes["model.onnx"], num_bytes=(place / "model.onnx").stat().st_size)
        about = _description(predictor, name, graph, dated=dated, plain=plain)
        storage.write_json(place / "export.json", about | {"sha256": hashes, "tried": dict(found)})

    storage.publish(folder.absolute().parent, folder.name, write, facts={"onnx_format": FORMAT})
    return Exported(folder=folder, model=name, **found)


def _refuse_conditions(predictor: Predictor) -> None:
    config = predictor.config
    if config.repeat != "allow" or config.rules is not None:
        has = f"the repeat policy {config.repeat}" if config.repeat != "allow" else "rules"
        raise ConfigError(
            f"The bundle has {has}, which an exported network does not follow: it gives the "
            "probabilities before that. Say --plain to export it nevertheless, and leave out what "
            "may not be offered yourself."
        )


def _network_of(
    predictor: Predictor, asked: str | None
) -> tuple[str, Exportable, NeuralModel[Any, Any]]:
    there = predictor.models
    networks = [name for name, model in there.items() if isinstance(model, NeuralModel)]
    name = asked or next(iter(sorted(networks, key=lambda n: n != "transformer")), None)
    if name is None:
        raise ConfigError(
            f"The bundle has no network, only {', '.join(there)}; an ONNX file holds a network. "
            "Train one with: nextbuy train DATA --models transformer --out DIR"
        )
    model = there.get(name)
    if model is None:
        raise ConfigError(f"No model {name!r} in the bundle; there is {', '.join(there)}.")
    if not isinstance(model, NeuralModel) or not isinstance(model.network, Exportable):
        raise ConfigError(_why_not(name, model))
    num_bytes = 4 * sum(p.numel() for p in model.network.trained_parameters().values())
    if num_bytes > _MOST_BYTES:
        raise ConfigError(
            f"{name} has {num_bytes:,} bytes of weights; one ONNX file holds {_MOST_BYTES:,}."
        )
    return name, model.network, model


def _why_not(name: str, model: FittedModel) -> str:
    if name == BLEND:
        return "A blend has counting models among its members; export one network: --model NAME."
    if isinstance(model, NeuralModel):
        return f"{name} is a network that nextbuy export does not know."
    return f"{name} is no network: it looks up tables of users and items. Export a network."


def _write_graph(graph: ExportedNetwork, path: Path, *, dated: bool, model: str) -> None:
    """Trace the graph for any number of rows and purchases, and write it as one file."""
    rows, columns = 2, 3
    items = torch.tensor([[1, 1, 0], [1, 1, 1]])
    arguments: list[torch.Tensor] = [items, torch.arange(columns).expand(rows, columns).clone()]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes: list[dict[int, Any]] = [{0: batch, 1: length}] * 2
    if dated:
        arguments += [arguments[1] * 10**9, torch.full((rows,), 10**10)]
        shapes += [{0: batch, 1: length}, {0: batch}]
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            program = torch.onnx.export(
                graph, tuple(arguments), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(INPUTS[: len(arguments)]), output_names=list(OUTPUTS),
                dynamic_shapes=tuple(shapes), external_data=False,
            )  # fmt: skip
    finally:
        noisy.setLevel(level)
    if program is None:
        raise NextbuyError("The exporter of torch gave nothing.")
    _without_traces(program.model)
    program.model.metadata_props.update(
        {"nextbuy": __version__, "model": model, "format": str(FORMAT)}
    )
    program.save(path, external_data=False)


def _without_traces(model: Any) -> None:
    """The exporter notes the paths of this machine at every node; they are nobody's business."""
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.metadata_props.clear()
        graph.doc_string = None
        values = [*graph.inputs, *graph.initializers.values()]
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            values += node.outputs
        for value in values:
            value.metadata_props.clear()
            value.doc_string = None


def _tried(predictor: Predictor, model: NeuralModel[Any, Any], path: Path) -> dict[str, Any]:
    """How far the file is from the network, on some of the bundle's histories."""
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    histories = predictor.histories
    chosen = np.linspace(0, len(histories) - 1, min(_CHECKED, len(histories))).astype(np.int64)
    some = histories.take(np.unique(chosen))
    as_of = _later(inputs_of(some).get("as_of"))
    asked = inputs_of(some, as_of)
    scores = session.run(["scores"], {each.name: asked[each.name] for each in session.get_inputs()})
    scores = scores[0]
    expected = model.log_probabilities(some, as_of)
    largest = float(np.abs(scores[:, 1:] - expected[:, 1:]).max(initial=0.0))
    if not largest <= TOLERANCE:  # nan is not
        raise BundleError(
            f"The exported file answers with log-probabilities that are {largest} away from those "
            f"of the network, more than {TOLERANCE}; it was not written. Please report it."
        )
    return {"largest_difference": largest, "num_checked": len(some)}


def _later(last: Int64 | None) -> Int64 | None:
    """Moments some days after the last purchases, other ones for each user."""
    return None if last is None else last + np.arange(len(last)) % 30 * 86_400_000_000


def _description(
    predictor: Predictor, name: str, graph: ExportedNetwork, *, dated: bool, plain: bool
) -> dict[str, Any]:
    """What `export.json` says, but for hashes."""
    losses = {
        row["model"]: row["validation"]["loss"] for row in predictor.facts.get("leaderboard", [])
    }
    inputs = {
        "items": "int64 [batch, length]: index of each purchase (row of catalog.parquet + 1), the "
        "oldest first; 0 after the last one",
        "baskets": "int64 [batch, length]: 0 for the first basket of each row, one more for each "
        "later one; equal for what was bought together",
        "times": "int64 [batch, length]: UTC microseconds, never decreasing",
        "as_of": "int64 [batch]: when each row is asked, UTC microseconds, after its purchases",
    }
    return {
        "format": FORMAT,
        "nextbuy": __version__,
        "opset": OPSET,
        "model": name,
        "covers": f"{name} alone, with its temperature and, where it has one, its repeat head and "
        "the own items that it needs; no blend, no repeat policy, no rules, no reasons",
        "left_out": {"repeat": predictor.config.repeat, "rules": predictor.config.rules is not None}
        if plain
        else {},
        "validation_loss": {
            key: losses.get(key) for key in dict.fromkeys((name, predictor.best_model))
        },
        "level": predictor.catalog.level,
        "num_items": len(predictor.catalog),
        "inputs": {key: inputs[key] for key in (INPUTS if dated else INPUTS[:2])},
        "outputs": {
            "states": "float32 [batch, width]: what the network knows after each history",
            "scores": "float32 [batch, num_items + 1]: natural log of the probability of the next "
            "purchase, by item index; column 0 is -inf",
            "top_items": f"int64 [batch, {graph.k}]: the best item indices, of equals the lower",
            "top_scores": f"float32 [batch, {graph.k}]: their logs of probability",
        },
        "reads": f"the newest {graph.longest - 1} purchases in order, and all of them for own "
        "items, for which memory grows with the square of length",
        "unknown_items": "leave them out of the history",
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
