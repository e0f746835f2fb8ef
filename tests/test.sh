#!/usr/bin/env bash
# `make test`: installs what is missing, then format, lints, docs and every test. The closing line counts them.
# Fails without a Docker engine, unless LONGSHORE_NO_ENGINE=1: then the tests that need one are counted as skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

./deploy/setup.sh --tests
case $? in
  0) ;;
  3) [ "${LONGSHORE_NO_ENGINE:-}" = 1 ] || { echo 'test: no Docker engine; LONGSHORE_NO_ENGINE=1 goes without' >&2; exit 1; } ;;
  *) exit 1 ;;
esac

failed_checks=0
check() {
  echo "==> $*" >&2
  "$@" || { echo "test: failed: $*" >&2; failed_checks=$((failed_checks + 1)); }
}
check cargo fmt --all --check
check cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
# The fuzz targets stand in a workspace of their own, which follows this one's dependencies.
check cargo update --workspace --locked --quiet --manifest-path fuzz/Cargo.toml
RUSTDOCFLAGS='-D warnings' check cargo doc --locked --quiet --workspace --no-deps --document-private-items

# The system tests start the binary itself.
check cargo build --locked --quiet -p longshore -p longshore-tests --bins

log=$(mktemp)
export LONGSHORE_SKIPPED=$(mktemp)
trap 'rm -f "$log" "$LONGSHORE_SKIPPED"' EXIT
echo '==> cargo test' >&2
cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log"
tests_status=${PIPESTATUS[0]}

sum() { sed -n "s/^test result: .*[ ;]\([0-9]*\) $1;.*/\1/p" "$log" | paste -sd+ | sed 's/^$/0/' | bc_; }
bc_() { read -r terms; echo $((${terms:-0})); }
skipped=$(sort -u "$LONGSHORE_SKIPPED" | grep -c . || true)
passed=$(($(sum passed) - skipped))
failed=$(($(sum failed) + failed_checks))
ignored=$(sum ignored)
if [ "$tests_status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
echo "$passed passed, $failed failed, $((skipped + ignored)) skipped"
[ "$failed" = 0 ] && [ "$tests_status" = 0 ]
