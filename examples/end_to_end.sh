#!/usr/bin/env bash
# The whole product on small data: make a log, check it, train, evaluate, predict, serve, demo.
# Every step's JSON is checked by a few lines of Python; any failure ends the script.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN="$PWD/.venv/bin"
WORK="$(mktemp -d)"
SERVER=""
trap 'test -z "$SERVER" || kill "$SERVER" 2> /dev/null || true; rm -rf "$WORK"' EXIT

echo "== a log as a shop exports it"
"$BIN/python" examples/make_log.py "$WORK/log.csv"

echo "== doctor"
"$BIN/nextbuy" doctor "$WORK/log.csv" --rejects "$WORK/rejects.csv" --json > "$WORK/doctor.json"

echo "== train, item level, temporal split"
"$BIN/nextbuy" train "$WORK/log.csv" --out "$WORK/bundle" --epochs 3 --json > "$WORK/train.json"

echo "== evaluate on the same log gives the same scores"
"$BIN/nextbuy" evaluate "$WORK/bundle" "$WORK/log.csv" --json > "$WORK/evaluate.json"

echo "== a backtest of counting models, and the report"
"$BIN/nextbuy" train "$WORK/log.csv" --out "$WORK/quick" --preset fast --time-limit 60 --json > /dev/null
"$BIN/nextbuy" evaluate "$WORK/quick" "$WORK/log.csv" --backtest 2 --json > "$WORK/backtest.json"
"$BIN/nextbuy" report "$WORK/bundle" --out "$WORK/report.html"

echo "== predict a known user, an unknown user, and raw histories"
"$BIN/nextbuy" predict "$WORK/bundle" --user u1 --user nobody --k 3 --json > "$WORK/predict.json"
echo '{"user": "new", "purchases": ["tea", "milk", "tea"]}' > "$WORK/history.jsonl"
"$BIN/nextbuy" predict "$WORK/bundle" --history "$WORK/history.jsonl" --k 3 --json > "$WORK/history.json"

echo "== serve: a purchase over HTTP is in the next answer, and survives a kill"
PORT="$("$BIN/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
HERE="http://127.0.0.1:$PORT"
serve() {
  "$BIN/nextbuy" serve "$WORK/quick" --port "$PORT" > "$WORK/serve.log" 2>&1 &
  SERVER=$!
  for _ in $(seq 300); do
    if curl -sf "$HERE/health/ready" > /dev/null; then return; fi
    sleep 0.1
  done
  cat "$WORK/serve.log" >&2; exit 1
}
ask() { curl -sS --fail-with-body "$HERE$1" -H 'Content-Type: application/json' -d "$2"; }
serve
ask /v1/predict '{"users": ["shopper"], "k": 3, "explain": true}' > "$WORK/before.json"
ask /v1/purchases '{"purchase": {"user_id": "shopper", "item_id": "tea"}}' > "$WORK/stored.json"
ask /v1/predict '{"users": ["shopper"], "k": 3, "explain": true}' > "$WORK/after.json"
kill -9 "$SERVER"; wait "$SERVER" 2> /dev/null || true
serve
curl -sSf "$HERE/v1/users/shopper" > "$WORK/remembered.json"
curl -sSf "$HERE/" > "$WORK/page.html"
kill "$SERVER"; wait "$SERVER" || true
SERVER=""

echo "== the described run, small"
"$BIN/nextbuy" demo --users 2000 --epochs 1 --out "$WORK/demo" --json > "$WORK/demo.json"

echo "== a bad file is refused in one line"
if "$BIN/nextbuy" train "$WORK/missing.csv" --out "$WORK/none" 2> "$WORK/error.txt"; then
  echo "a missing file was accepted" >&2; exit 1
fi
test "$(wc -l < "$WORK/error.txt")" -eq 1
cat "$WORK/error.txt"

"$BIN/python" examples/check_outputs.py "$WORK"
echo "end to end: all well"
