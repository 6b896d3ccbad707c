#!/usr/bin/env bash
# The gateway beside Envoy, nginx and HAProxy: a table in Markdown of CPU time per request, what it was measured with, and
# memory.
#
#     PEERS=FOLDER [PEERS_HOME=FOLDER] benches/report.sh [PROGRAM] [option of the peer bench ...]
#
# PEERS is the folder of the peer bench, a bench.py that starts each gateway on one core in front of one backend, checks its
# answers, and runs them in turns under one load; PEERS_HOME is where its setup.sh has put the peers. PROGRAM is the gateway,
# by default target/release/sabir. What else is given goes to the bench: --scenarios rest_get,grpc_get, --seconds 2,
# --paced 5000. The table goes to standard output, what the bench says to standard error.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${PEERS:?is to name the folder of the peer bench}"
program=target/release/sabir
if (($#)) && [[ $1 != -* ]]; then
  program=$1
  shift
fi
[[ -x $program ]] || { echo "$program is not there; build it with cargo build --release" >&2; exit 1; }
PEERS_BIN_SABIR=$(realpath "$program")
export PEERS_BIN_SABIR

figures=$(mktemp)
trap 'rm -f "$figures"' EXIT
# It ends with 1 if a peer gave a wrong answer or an error, which is in its notes and in the table's too.
"$PEERS/bench.py" --gateway sabir --vs envoy --vs nginx --vs haproxy --json "$figures" "$@" >&2 || true

python3 - "$figures" <<'PYTHON'
import json, os, platform, statistics, sys

with open(sys.argv[1]) as file:
    figures = json.load(file)
runs = {(entry["scenario"], entry["gateway"]): entry["runs"] for entry in figures["results"]}
scenarios = list(dict.fromkeys(scenario for scenario, _ in runs))
names = [name for name in ("sabir", "envoy", "nginx", "haproxy") if any(key[1] == name for key in runs)]


def least(rows):
    return min(row["cpu"] for row in rows)


def beside(ours, theirs):
    ratios = [one["cpu"] / other["cpu"] for one, other in zip(ours, theirs) if other["cpu"]]
    return f"{least(ours) / least(theirs):.2f} ({statistics.median(ratios):.2f})"


def line(cells):
    print("| " + " | ".join(cells) + " |")


print("CPU time per request in microseconds, the least of all runs; then as a multiple of a peer's: of the leasts, and in")
print("parentheses the median over runs in turns.\n")
line(["scenario", *names, *(f"/ {name}" for name in names[1:]), "peak memory / envoy", "errors"])
line(["---"] + ["---:"] * (2 * len(names) + 1))
for scenario in scenarios:
    ours = runs.get((scenario, "sabir"))
    if not ours:
        continue
    of = {name: runs.get((scenario, name)) for name in names}
    peak = "-"
    if of.get("envoy"):
        peak = f"{max(row['peak'] for row in ours) / max(row['peak'] for row in of['envoy']):.2f}"
    line(
        [
            scenario,
            *(f"{least(of[name]):.1f}" if of[name] else "-" for name in names),
            *(beside(ours, of[name]) if of[name] else "-" for name in names[1:]),
            peak,
            str(sum(row["errors"] for row in ours)),
        ]
    )
memory = figures.get("memory") or {}
if memory.get("sabir"):
    print("\nResident memory in MiB: idle, and what an idle connection adds in KiB.\n")
    line(["gateway", "idle", "HTTP/1.1", "HTTP/2"])
    line(["---", "---:", "---:", "---:"])
    for name in names:
        of = memory.get(name)
        if of:
            each = [of.get(kind, {}).get("kib_per_conn") for kind in ("h1", "h2")]
            line([name, f"{of['idle_rss']:.1f}", *("-" if one is None else f"{one:.1f}" for one in each)])
paced = [(scenario, name, rows[-1]["paced"]) for (scenario, name), rows in runs.items() if "paced" in rows[-1]]
if paced:
    print("\nLatency at a fixed rate, in milliseconds.\n")
    line(["scenario", "gateway", "p50", "p99"])
    line(["---", "---", "---:", "---:"])
    for scenario, name, row in paced:
        line([scenario, name, f"{row['p50']:.2f}", f"{row['p99']:.2f}"])
print()
for name in names:
    print(f"- {name}: {figures['versions'].get(name) or 'no version told'}")
print(f"- machine: {os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}")
for note in figures.get("notes", []):
    print(f"- {note}")
PYTHON
