#!/usr/bin/env bash
# Builds the fuzz targets with coverage, and runs each for some seconds from the inputs in corpus/ and what it found before.
# Works with the stable compiler. A finding ends it: the input lies in $CARGO_TARGET_DIR/fuzz/TARGET.
#
# Usage: fuzz/run.sh [--check] [SECONDS [TARGET…]]      --check builds and runs every input of the corpus once
set -euo pipefail
cd "$(dirname "$0")"
check=no
if [ "${1:-}" = --check ]; then check=yes; shift; fi
seconds=${1:-60}
shift || true
targets=("$@")
if [ ${#targets[@]} = 0 ]; then for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done; fi

host=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:?name the folder for what is built}/fuzz
# As cargo-fuzz does; --target keeps it from build scripts and macros. No sanitizer of memory: the sources have no unsafe code.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
bins=(); for target in "${targets[@]}"; do bins+=(--bin "$target"); done
cargo build --locked --release --target "$host" --target-dir "$folder/build" "${bins[@]}"
for target in "${targets[@]}"; do
  program=$folder/build/$host/release/$target
  mkdir -p "$folder/$target/found" "corpus/$target"
  limits=(-rss_limit_mb=2048 -timeout=10 -max_len=65536 -artifact_prefix="$folder/$target/")
  if [ $check = yes ]; then
    "$program" "${limits[@]}" -runs=0 "corpus/$target" 2>&1 | tail -n 1
  else
    printf '==> %s, %s s\n' "$target" "$seconds"
    "$program" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 -verbosity=0 "$folder/$target/found" "corpus/$target"
  fi
done
