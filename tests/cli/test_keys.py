"""`nextbuy keys`: a key is shown once, and the file alone opens nothing."""

import json

from nextbuy.service.guard.keys import KeyRing


def test_a_key_is_printed_once_and_opens_what_it_should(tmp_path, run):
    file = tmp_path / "keys.json"
    code, out, err = run(
        "keys", "add", file, "--name", "till", "--scope", "read", "--scope", "write"
    )
    key = out.strip()
    assert code == 0
    assert key not in err
    found = KeyRing(file).find(f"Bearer {key}".encode())
    assert (found.name, found.may("write"), found.may("admin")) == ("till", True, False)
    code, out, err = run("keys", "list", file)
    assert code == 0
    assert "till" in out and "read, write" in out
    assert key[3:] not in out + err + file.read_text()


def test_keys_for_programs(tmp_path, run):
    file = tmp_path / "keys.json"
    code, out, _ = run("keys", "add", file, "--name", "till", "--scope", "admin", "--json")
    made = json.loads(out)
    assert (code, made["name"], made["scopes"]) == (0, "till", ["admin"])
    assert KeyRing(file).find(f"Bearer {made['key']}".encode()).may("write")
    listed = json.loads(run("keys", "list", file, "--json")[1])["keys"]
    assert [(key["name"], key["scopes"]) for key in listed] == [("till", ["admin"])]


def test_a_removed_key_is_gone(tmp_path, run):
    file = tmp_path / "keys.json"
    run("keys", "add", file, "--name", "a", "--scope", "read")
    run("keys", "add", file, "--name", "b", "--scope", "read")
    assert run("keys", "remove", file, "--name", "a")[0] == 0
    assert [key["name"] for key in json.loads(run("keys", "list", file, "--json")[1])["keys"]] == [
        "b"
    ]
    code, _, err = run("keys", "remove", file, "--name", "a")
    assert code == 1
    assert "no key named 'a'; it has: b" in " ".join(err.split())


def test_what_cannot_be_a_key_is_refused(tmp_path, run):
    file = tmp_path / "keys.json"
    assert run("keys", "add", file, "--name", "a", "--scope", "owner")[0] == 1
    assert run("keys", "add", file, "--name", "a")[0] == 2
    assert run("keys", "list", file)[0] == 1
    assert not file.exists()
