"""An exported network, asked by a runtime that knows nothing of nextbuy, says what ours says."""

import contextlib
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.cli.app import main
from nextbuy.data.histories import DAY, Histories
from nextbuy.errors import ConfigError
from nextbuy.export import Exported, export_onnx
from nextbuy.export.graph import ExportedNetwork
from nextbuy.export.inputs import inputs_of
from tests.shop import shop_log

ASKED = 1_750_000_000_000_000


@pytest.fixture(scope="module")
def predictor():
    """Items of two platforms, sometimes two in a basket; windows shorter than the histories."""
    is_dry = pl.col("item_id").is_in(["tea", "rice", "soap"])
    log = shop_log(num_users=40).with_columns(
        platform=pl.when(is_dry).then(pl.lit("A")).otherwise(pl.lit("B"))
    )
    also = log[::4].with_columns(item_id=pl.lit("bag"), platform=pl.lit("A"))
    config = PredictorConfig(
        models=("transformer", "popularity"),
        epochs=3,
        options={"transformer": {"training": {"longest_window": 12}}},
    )
    return Predictor.fit(pl.concat([log, also]), config=config)


@pytest.fixture(scope="module")
def exported(predictor, tmp_path_factory):
    """As the command line writes it."""
    folder = tmp_path_factory.mktemp("export")
    predictor.save(folder / "bundle")
    said = io.StringIO()
    arguments = ["export", folder / "bundle", "--onnx", folder / "file", "--k", 5, "--json"]
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 0
    found = json.loads(said.getvalue())
    return Exported(**found | {"folder": Path(found["folder"])})


@pytest.fixture(scope="module")
def session(exported):
    path = exported.folder / "model.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def drawn(seed, num_items, longest=40):
    """Histories of any lengths, with baskets and waits from seconds to months."""
    rng = np.random.default_rng(seed)
    items, times, baskets = [], [], []
    for length in [0, 1, 2, longest, *rng.integers(0, longest, 12)]:
        opens = rng.random(length) < 0.7
        waits = np.where(opens, 10 ** rng.uniform(0, 7, length), 0) * 1e6
        numbers = np.cumsum(opens) - opens[:1].sum()
        late = ASKED - 30 * DAY - int(waits.sum())
        times.append((late + np.cumsum(waits)).astype(int).tolist())
        baskets.append(numbers.tolist())
        items.append(rng.integers(1, num_items + 1, length).tolist())
    histories = Histories.from_lists(items, times=times, baskets=baskets)
    last = np.array([row[-1] if row else ASKED for row in times])
    return histories, last + (10 ** rng.uniform(0, 6, len(last)) * 1e6).astype(np.int64)


@pytest.mark.parametrize("seed", range(6))
def test_the_file_answers_as_the_network_does(predictor, session, seed):
    model = predictor.models["transformer"]
    histories, as_of = drawn(seed, len(predictor.catalog))
    expected = model.log_probabilities(histories, as_of)
    states, scores, items, values = session.run(None, inputs_of(histories, as_of))
    assert states.shape == (len(histories), 64)
    np.testing.assert_allclose(scores[:, 1:], expected[:, 1:], atol=1e-4)
    assert np.isneginf(scores[:, 0]).all()
    best = np.argsort(-expected, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(items, best)
    np.testing.assert_allclose(values, np.take_along_axis(expected, best, 1), atol=1e-4)


def test_a_row_says_the_same_alone_and_beside_longer_ones(predictor, session):
    histories, as_of = drawn(9, len(predictor.catalog))
    together = session.run(["scores"], inputs_of(histories, as_of))[0]
    for row in range(len(histories)):
        alone = inputs_of(histories.take(np.array([row])), as_of[row : row + 1])
        found = session.run(["scores"], alone)[0]
        np.testing.assert_allclose(found[0, 1:], together[row, 1:], atol=1e-5)


def test_what_was_bought_and_when_changes_the_answer(session):
    """Or the test above would hold for a file that ignores its inputs."""
    items, baskets = np.array([[1, 2, 3]]), np.array([[0, 1, 2]])
    times = np.array([[ASKED - 9 * DAY, ASKED - 5 * DAY, ASKED - 2 * DAY]])
    asked = {"items": items, "baskets": baskets, "times": times, "as_of": np.array([ASKED])}
    first = session.run(["scores"], asked)[0][:, 1:]
    others = {
        "items": items[:, ::-1].copy(),
        "baskets": np.array([[0, 1, 1]]),
        "times": times - 20 * DAY,
    }
    for name, changed in others.items():
        found = session.run(["scores"], asked | {name: changed})[0][:, 1:]
        assert np.abs(found - first).max() > 1e-3, name


def test_one_file_with_its_hash_and_a_description(predictor, exported):
    about = json.loads((exported.folder / "export.json").read_text())
    names = sorted(path.name for path in exported.folder.iterdir())
    assert names == ["catalog.parquet", "export.json", "manifest.json", "model.onnx"]
    data = (exported.folder / "model.onnx").read_bytes()
    assert about["sha256"]["model.onnx"] == hashlib.sha256(data).hexdigest() == exported.sha256
    assert b".py" not in data
    assert b"nextbuy.export" not in data
    model = onnx.load_from_string(data)
    assert not any(t.external_data for t in model.graph.initializer)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    inputs = {
        i.name: [d.dim_param for d in i.type.tensor_type.shape.dim] for i in model.graph.input
    }
    assert list(inputs) == ["items", "baskets", "times", "as_of"]
    assert set(about["inputs"]) == set(inputs)
    assert inputs["items"] == ["batch", "length"]
    assert about["num_items"] == len(predictor.catalog) == 7
    found = pl.read_parquet(exported.folder / "catalog.parquet")
    assert found.equals(predictor.catalog.table)


def test_the_example_of_the_docstring_runs_without_nextbuy(predictor, exported, tmp_path):
    from nextbuy.export import writing

    code = writing.__doc__.split("without nextbuy:\n\n")[1]
    code = "\n".join(line[4:] for line in code.splitlines())
    code += "\nimport sys\nassert 'nextbuy' not in sys.modules and 'torch' not in sys.modules\n"
    (tmp_path / "exported").symlink_to(exported.folder)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 5
    assert {item for item, _ in lines} <= set(predictor.catalog.table["item_id"])
    assert 0 < sum(float(share) for _, share in lines) <= 1


def test_what_cannot_be_exported_is_refused_with_the_reason(predictor, exported, tmp_path):
    with pytest.raises(ConfigError, match="popularity is no network"):
        export_onnx(predictor, tmp_path / "x", model="popularity")
    with pytest.raises(ConfigError, match="A blend has counting models"):
        export_onnx(predictor, tmp_path / "x", model="blend")
    with pytest.raises(ConfigError, match="there is transformer, popularity, blend"):
        export_onnx(predictor, tmp_path / "x", model="gru")
    with pytest.raises(ConfigError, match="is there already"):
        export_onnx(predictor, exported.folder)
    strict = Predictor(
        config=predictor.config.model_copy(update={"repeat": "exclude"}),
        catalog=predictor.catalog, histories=predictor.histories, facts=predictor.facts,
        models={"transformer": predictor.models["transformer"]},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"repeat policy exclude.*--plain"):
        export_onnx(strict, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["gru", "lstm-rnn"])
def test_networks_that_read_by_recurrence_are_exported_too(name, tmp_path):
    """By the layers that ONNX has, whose gates are in another order."""
    log = shop_log(num_users=20)
    log = pl.concat([log, log[::3].with_columns(item_id=pl.lit("bag"))])
    options = {name: {"training": {"longest_window": 12}}}
    config = PredictorConfig(models=(name,), epochs=1, options=options, blend=False)
    predictor = Predictor.fit(log, config=config)
    found = export_onnx(predictor, tmp_path / "x")
    session = onnxruntime.InferenceSession(
        found.folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    assert [each.name for each in session.get_inputs()] == ["items", "baskets"]
    histories, as_of = drawn(3, len(predictor.catalog))
    asked = inputs_of(histories)
    scores = session.run(["scores"], {key: asked[key] for key in ("items", "baskets")})[0]
    expected = predictor.models[name].log_probabilities(histories, as_of)
    np.testing.assert_allclose(scores[:, 1:], expected[:, 1:], atol=1e-4)
    assert np.ptp(scores[:, 1:], axis=0).max() > 0.01  # histories matter


@pytest.mark.parametrize(
    ("size", "gated", "repeats", "taps", "order"),
    [
        ("medium", True, True, 0, False),
        ("small", False, False, 5, True),
        ("small", True, True, 3, True),
    ],
)  # fmt: skip
def test_every_kind_of_transformer_has_the_same_graph(size, gated, repeats, taps, order):
    """In torch, without the exporter: gates, heads, no repeat head, no dates."""
    import torch

    options = {"size": size, "gated": gated, "repeats": repeats, "taps": taps}
    log = shop_log(num_users=20)
    if order:
        log = log.with_columns(timestamp=pl.int_range(pl.len()).over("user_id"))
    config = PredictorConfig(models=("transformer",), epochs=1, options={"transformer": options})
    from nextbuy.data.options import ReadOptions

    read = ReadOptions(time="order" if order else "auto")
    predictor = Predictor.fit(log, config=config, options=read)
    model = predictor.models["transformer"]
    graph = ExportedNetwork(
        model.network, groups=model.groups, longest=model.config.training.longest_window,
        temperature=1.7, k=3,
    )  # fmt: skip
    model.config = model.config.model_copy(update={"temperature": 1.7})
    asked = inputs_of(predictor.histories)
    with torch.no_grad():
        found = graph(*(torch.from_numpy(array) for array in asked.values()))[1].numpy()
    expected = model.log_probabilities(predictor.histories, asked.get("as_of"))
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], atol=1e-4)
