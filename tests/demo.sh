#!/usr/bin/env bash
# `make demo`: installs what is missing, builds, and runs the demo program; see tests/src/bin/demo.rs.
set -euo pipefail
cd "$(dirname "$0")/.."

sandbox=docker
./deploy/setup.sh || case $? in
  3) sandbox=host ;;
  *) exit 1 ;;
esac
cargo build --locked -p longshore -p longshore-tests --bin longshore --bin demo
exec "$CARGO_TARGET_DIR/debug/demo" --sandbox "$sandbox" "$@"
