#!/usr/bin/env bash
# The whole product on small data: make a log, check it, train, evaluate, predict, demo.
# Every step's JSON is checked by a few lines of Python; any failure ends the script.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN="$PWD/.venv/bin"
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT

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
