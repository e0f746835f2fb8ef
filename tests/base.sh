#!/usr/bin/env bash
# Builds an earlier commit in a folder of its own, outside the checkout, and prints the path of its program:
#   tests/base.sh COMMIT
set -euo pipefail
cd "$(dirname "$0")/.."

commit=$(git rev-parse --verify "$1^{commit}")
folder="${XDG_CACHE_HOME:-$HOME/.cache}/longshore/base/$commit"
program="$folder/target/release/longshore"
if [ ! -x "$program" ]; then
  mkdir -p "$folder"
  [ -e "$folder/source/.git" ] || { git worktree prune; git worktree add --detach "$folder/source" "$commit"; } >&2
  # The worktree is only needed to build: the checkout forgets it whatever comes of that.
  trap 'git worktree remove --force "$folder/source" >&2' EXIT
  (cd "$folder/source" && CARGO_TARGET_DIR="$folder/target" cargo build --locked --release -p longshore --bin longshore >&2)
fi
echo "$program"
