"""`nextbuy serve` in a process of its own: a bundle, a store, keys, and signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from nextbuy import Predictor, PredictorConfig
from nextbuy.errors import ConfigError, StoreError
from nextbuy.service import assembly
from nextbuy.service.assembly import open_service
from nextbuy.service.config import ServiceSettings
from nextbuy.service.guard.keys import KeyRing, add_key
from tests.shop import shop_log

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-m", "nextbuy", "serve", *map(str, arguments)]


@contextmanager
def serving(folder: Path, *arguments, **environment):
    """The process and its address."""
    process = subprocess.Popen(
        command(folder, "--port", 0, *arguments),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT | environment,
    )  # fmt: skip
    log: list[str] = []
    drain = threading.Thread(target=lambda: log.append(process.stderr.read()))
    drain.start()
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+$", line.strip())
        if not found:
            process.kill()
            drain.join()
        assert found, line + "".join(log)
        yield process, found.group()
    finally:
        process.kill()
        process.wait()
        drain.join()
        process.stdout.close()
        process.stderr.close()


def refused(*arguments):
    """What is said instead of serving."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("shop")
    config = PredictorConfig(models=("popularity", "personal-frequency"), refit=False)
    Predictor.fit(shop_log(60), config=config).save(made)
    return made


@pytest.fixture(scope="module")
def keys(folder):
    file = folder / "keys.json"
    return {scope: add_key(file, scope, [scope]) for scope in ("read", "write", "admin")} | {
        "file": file
    }


@pytest.fixture(scope="module")
def address(folder, keys):
    with serving(folder, "--keys", keys["file"]) as (_, found):
        yield found


@pytest.fixture
def ask(address, keys):
    def asked(scope, method, path, **options):
        headers = {"Authorization": f"Bearer {keys[scope]}"} if scope else {}
        headers |= options.pop("headers", {})
        return httpx.request(method, address + path, headers=headers, timeout=20, **options)

    return asked


def test_what_is_bought_changes_the_next_answer(ask):
    question = {"users": ["newcomer"], "k": 3}
    before = ask("read", "POST", "/v1/predict", json=question).json()["answers"][0]
    assert before["fallback"] is True
    item = before["offers"][-1]["item_id"]
    bought = [{"user_id": "newcomer", "item_id": item} for _ in range(5)]
    stored = ask("write", "POST", "/v1/purchases", json={"purchases": bought})
    assert stored.json()["stored"] == 5
    after = ask("read", "POST", "/v1/predict", json=question).json()["answers"][0]
    assert after["fallback"] is False
    assert after["offers"][0]["item_id"] == item
    assert after["after_sequence"] >= 5
    shown = ask("read", "GET", "/v1/users/newcomer").json()["purchases"]
    assert [row["item_id"] for row in shown] == [item] * 5


def test_an_audience_comes_as_csv(ask):
    told = ask("read", "POST", "/v1/audience", json={"item": "tea", "within_days": 30, "size": 5})
    job = told.json()["id"]
    for _ in range(2_000):
        told = ask("read", "GET", f"/v1/jobs/{job}").json()
        if told["state"] in ("done", "failed"):
            break
    assert told["state"] == "done", told
    lines = ask("read", "GET", f"/v1/jobs/{job}/result").text.splitlines()
    assert lines[0].startswith("user_id,rank,probability")
    assert len(lines) == 6


def test_forecast_model_and_metrics_answer(ask):
    rows = ask("read", "POST", "/v1/forecast", json={"users": ["u1", "nobody"]}).json()["rows"]
    assert [row["user_id"] for row in rows] == ["u1", "nobody"]
    assert ask("read", "GET", "/v1/model").json()["version"] == "000001"
    assert ask("admin", "POST", "/v1/model", json={"name": "latest"}).json()["version"] == "000001"
    assert "nextbuy_requests_total" in ask("read", "GET", "/metrics").text


def test_a_user_is_forgotten(ask):
    assert ask("read", "GET", "/v1/users/u2").status_code == 200
    assert ask("write", "DELETE", "/v1/users/u2").status_code == 403
    assert ask("admin", "DELETE", "/v1/users/u2").status_code == 200
    assert ask("read", "GET", "/v1/users/u2").status_code == 404
    answer = ask("read", "POST", "/v1/predict", json={"users": ["u2"]}).json()["answers"][0]
    assert answer["fallback"] is True


def test_S35_every_route_asks_for_its_scope(ask):
    document = ask(None, "GET", "/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            address = path.replace("{job_id}", "x").replace("{user_id}", "nobody")
            told = ask(None, method.upper(), address)
            assert (told.status_code == 401) == bool(operation["security"]), (method, path)
            assert told.status_code in (200, 401, 503), (method, path, told.text)


def test_S50_without_a_bundle_it_lives_and_stores_and_S26_survives_a_kill(tmp_path):
    body = {"purchase": {"user_id": "ann", "item_id": "tea"}}
    key = {"Idempotency-Key": "order-1"}
    with serving(tmp_path, "--no-page") as (process, address):
        assert httpx.get(f"{address}/health/live").status_code == 200
        assert httpx.get(f"{address}/health/ready").status_code == 503
        assert httpx.post(f"{address}/v1/purchases", json=body, headers=key).status_code == 200
        assert httpx.post(f"{address}/v1/predict", json={"users": ["ann"]}).status_code == 503
        assert httpx.get(f"{address}/page/sign-in").status_code == 404
        process.kill()
        process.wait()
    with serving(tmp_path) as (process, address):
        again = httpx.post(f"{address}/v1/purchases", json=body, headers=key).json()
        assert again == {"stored": 1, "first_sequence": 1, "repeated": True}
        assert "<form" in httpx.get(f"{address}/", headers={"Accept": "text/html"}).text
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)


def says_of_the_model_process(address):
    words = httpx.get(f"{address}/metrics").text
    return float(re.search(r"^nextbuy_model_process (\S+)$", words, re.MULTILINE).group(1))


def test_the_model_has_a_process_if_told_so_and_none_if_not(folder, tmp_path):
    store = f"sqlite:///{tmp_path / 'live.sqlite'}"
    with serving(folder, "--store", store, "--model-process") as (_, address):
        end = time.monotonic() + 60
        while not says_of_the_model_process(address) and time.monotonic() < end:
            time.sleep(0.05)
        assert says_of_the_model_process(address) == 1.0
    with serving(folder, "--store", store, "--no-model-process") as (process, address):
        assert psutil.Process(process.pid).children() == []
        assert says_of_the_model_process(address) == 0.0


@pytest.mark.parametrize("cores", [1, 2])
def test_where_nobody_said_so_two_cores_decide(folder, tmp_path, monkeypatch, cores):
    monkeypatch.setattr(assembly, "num_cores", lambda: cores)
    settings = ServiceSettings(store=f"sqlite:///{tmp_path / 'live.sqlite'}")
    _, live, observing = assembly.open_parts(folder, settings)
    assert (live._current.beside is not None) == (cores == 2)
    observing.close()
    live.close()


def test_S34_another_address_is_refused_without_keys(tmp_path):
    assert "--keys" in refused(tmp_path, "--host", "0.0.0.0", "--port", 0)  # noqa: S104


def test_S49_a_port_in_use_is_told_clearly(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is taken" in refused(tmp_path, "--port", port)


def test_S49_a_store_in_use_is_told_clearly(folder, address):
    with pytest.raises(StoreError, match=r"purchases\.sqlite"):
        open_service(folder, ServiceSettings(), KeyRing(None))


def test_a_wrong_setting_or_folder_is_told_clearly(tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text("port = 80\n[limits]\nk = 7\n")
    settings = ServiceSettings.of(config, {"port": 81, "host": None})
    assert (settings.port, settings.limits.k, settings.host) == (81, 7, "127.0.0.1")
    for text, name in (("[limits]\nk = 0\n", "limits.k"), ("colour = 'red'\n", "colour")):
        config.write_text(text)
        with pytest.raises(ConfigError, match=name):
            ServiceSettings.of(config, {})
    for text, words in (
        ("prot = 1\n", "There is no setting prot. Did you mean port?"),
        ("rate = 5\n", "There is no setting rate. Did you mean limits.rate?"),
        ("[limits]\nkey = 5\n", "There is no setting limits.key. Did you mean keys?"),
        ("[jobs]\nzzzzzz = 5\n", "There is no setting jobs.zzzzzz."),
    ):
        config.write_text(text)
        with pytest.raises(ConfigError) as refused:
            ServiceSettings.of(config, {})
        assert str(refused.value) == words
    with pytest.raises(ConfigError, match="cannot be read"):
        ServiceSettings.of(tmp_path / "nothing.toml", {})
    with pytest.raises(ConfigError, match="is no folder"):
        open_service(tmp_path / "nothing", ServiceSettings(), KeyRing(None))
