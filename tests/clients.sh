#!/usr/bin/env bash
# `make clients`: installs what is missing, builds the real client and the real server of Nostr git once, and drives a pool
# with them; see tests/src/clients.rs.
#
# Both are built from crates.io into ~/.cache/longshore/clients, apart from this checkout, and kept there: some ten minutes on
# two cores, and 2 GB while they are built.
set -euo pipefail
cd "$(dirname "$0")/.."

NGIT=3.0.4
GRASP=3.0.10

sandbox=docker
./deploy/setup.sh || case $? in
  3) sandbox=host ;;
  *) exit 1 ;;
esac

folder="${XDG_CACHE_HOME:-$HOME/.cache}/longshore/clients"
programs="$folder/ngit-$NGIT-grasp-$GRASP"

# Builds the programs of a crate as its authors locked its dependencies.
build() {
  local crate=$1 version=$2 source="$folder/build/$1-$2"
  if [ ! -e "$source/unpacked" ]; then
    rm -rf "$source"
    mkdir -p "$source"
    # Cargo fetches a crate, checks and unpacks it to say what it is.
    (cd "$source" && cargo info --quiet "$crate@$version" >/dev/null)
    cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate-$version"/. "$source/"
    chmod -R u+w "$source"
    printf '\n[workspace]\n' >>"$source/Cargo.toml"
    touch "$source/unpacked"
  fi
  cd "$source"
  # A registry may not have the newest list of certificate authorities that they are locked to: an earlier one does here.
  cargo fetch --quiet --locked 2>/dev/null || cargo update --quiet -p webpki-roots@1.0.11 --precise 1.0.10
  CARGO_TARGET_DIR="$folder/build/target" CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 cargo build --locked --bins
}

if [ ! -x "$programs/ngit-grasp" ]; then
  echo "==> building ngit $NGIT and ngit-grasp $GRASP into $programs: once" >&2
  (build ngit "$NGIT")
  (build ngit-grasp "$GRASP")
  mkdir -p "$programs"
  for name in ngit git-remote-nostr ngit-grasp; do install "$folder/build/target/debug/$name" "$programs/"; done
  rm -rf "$folder/build"
fi

cargo build --locked -p longshore -p longshore-tests --bin longshore --bin clients
exec "$CARGO_TARGET_DIR/debug/clients" --programs "$programs" --sandbox "$sandbox" "$@"
