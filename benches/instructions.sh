#!/usr/bin/env bash
# Instructions per case by callgrind: the same on a busy machine as on an idle one.
#
#     benches/instructions.sh [--check]
#
# --check fails where the transcoder costs more than it may beside prost-reflect with serde_json.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_PROFILE_BENCH_DEBUG=line-tables-only CARGO_PROFILE_BENCH_STRIP=none
binary=$(cargo bench --quiet --no-run --bench transcode --message-format=json |
  sed -n 's/.*"executable":"\([^"]*transcode[^"]*\)".*/\1/p' | tail -1)

count() {
  COUNT=$1 valgrind --tool=callgrind --callgrind-out-file="${OUT:-/dev/null}" "$binary" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

none=$(count none)
declare -A cost
for name in read read_reflect read_ignored write write_reflect write_tangled write_defaults; do
  cost[$name]=$(($(count "$name") - none))
done

failed=0
# row NAME BASE LEAST: NAME must cost at most a LEASTth of BASE, in percent.
row() {
  local times=$((cost[$2] * 100 / cost[$1]))
  local verdict=ok
  if ((times < $3)); then verdict="below $(($3 / 100)).$(($3 % 100))" failed=1; fi
  printf '%-16s %12d  %s / it = %d.%02d  %s\n' "$1" "${cost[$1]}" "$2" $((times / 100)) $((times % 100)) "$verdict"
}
for name in read_reflect read_ignored write_reflect; do printf '%-16s %12d\n' "$name" "${cost[$name]}"; done
row read read_reflect 1000
row read read_ignored 67
row write write_reflect 700
row write_defaults write_reflect 700
row write_tangled write_reflect 400

[[ ${1:-} != --check ]] || exit "$failed"
