#!/usr/bin/env bash
# Runs protobuf's conformance suite against the transcoder, recommended tests included. No failure is expected.
#
#     tests/conformance/run.sh
#
# CARGO_PROFILE chooses the build of the testee (default: dev).
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
tests/conformance/build.sh "$target/conformance"
cargo build --quiet --profile "${CARGO_PROFILE:-dev}" --example conformance
profile=${CARGO_PROFILE:-dev}
work=$(cd "$target/conformance" && pwd)
printf '#!/bin/sh\nexec %q %q\n' "$(cd "$target" && pwd)/${profile/#dev/debug}/examples/conformance" \
  "$work/messages.binpb" >"$work/testee"
chmod +x "$work/testee"
: >"$work/no_failures"

log=$work/log
if ! "$work/runner" --enforce_recommended --failure_list "$work/no_failures" --output_dir "$work" "$work/testee" \
  >"$log" 2>&1; then
  grep '^ERROR' "$log" | cut -c1-400 | head -50
  grep 'CONFORMANCE SUITE' "$log"
  exit 1
fi
# Too few cases mean that the runner was built without a suite, not that all is well.
passed=$(sed -n 's/^CONFORMANCE SUITE PASSED: \([0-9]*\) successes, 0 skipped, 0 expected failures.*/\1/p' "$log")
if [[ ${passed:-0} -lt 2000 ]]; then
  grep 'CONFORMANCE SUITE' "$log"
  echo "only ${passed:-0} cases ran"
  exit 1
fi
echo "conformance: $passed passed, 0 failed"
