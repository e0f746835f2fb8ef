#!/usr/bin/env bash
# Brings what Longshore needs on a machine: a C compiler, Rust, a Docker engine and the runner image for
# `ubuntu-latest`. Says what it does; what is there already is left alone, so a second call takes seconds.
#
# LONGSHORE_NO_ENGINE=1        do without a Docker engine
# LONGSHORE_IMAGE=NAME         take this local image as runner image
# LONGSHORE_DEBIAN_MIRROR=URL  where debootstrap gets its packages
#
# --tests brings what only the tests need besides: Chromium and its driver, for the tests of the dashboard, npm,
# schemathesis, which holds the API's description against the server, and the programs of PostgreSQL, of which the tests
# start a private server.
#
# Exit codes: 0 all there; 1 something is missing, the last lines say what to do; 3 all but a Docker engine.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

IMAGE=longshore/ubuntu:dev
PULLED=catthehacker/ubuntu:act-latest
PACKAGES=bash,sudo,git,curl,nodejs,jq,perl,python3,ca-certificates,tar,zstd

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$@" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: directly, or through sudo. Fails where neither is possible.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then sudo "$@"
  else return 1
  fi
}
can_root() { [ "$(id -u)" = 0 ] || { have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }; }

updated=no
apt_install() {
  have apt-get && can_root || return 1
  say "installing with apt-get: $*"
  if [ "$updated" = no ]; then
    as_root apt-get update -qq || return 1
    updated=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

compiler() {
  have cc && printf 'int main(void){return 0;}' | cc -x c -static -o /dev/null - 2>/dev/null && return
  apt_install gcc libc6-dev ||
    die "no C compiler with a static libc: install gcc and the C library's headers and archive (Debian/Ubuntu: gcc libc6-dev)"
}

# True where version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

rust() {
  local wanted found=none
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  if have cargo; then found=$(cargo --version | cut -d' ' -f2); fi
  if [ "$found" = none ] || ! at_least "$found" "$wanted"; then
    if have rustup; then
      say "cargo is $found, Longshore needs $wanted: updating with rustup"
      rustup update stable && rustup default stable
    else
      have curl || apt_install curl ca-certificates || die "curl is missing: install it, or Rust $wanted by hand"
      say "cargo is $found, Longshore needs $wanted: installing Rust into ~/.cargo with rustup (https://rustup.rs)"
      curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default --no-modify-path
    fi
  fi
  for part in clippy fmt; do
    cargo "$part" --version >/dev/null 2>&1 && continue
    say "adding cargo $part with rustup"
    rustup component add "${part/fmt/rustfmt}" || die "cargo $part is missing: install Rust's component for it"
  done
}

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

wait_for_engine() {
  for _ in $(seq 60); do engine_answers && return 0; sleep 0.5; done
  return 1
}

engine() {
  engine_answers && return 0
  if [ -n "${DOCKER_HOST:-}" ]; then
    die "DOCKER_HOST is $DOCKER_HOST and no Docker engine answers there: start it, or unset DOCKER_HOST"
  fi
  if ! have dockerd; then
    apt_install docker.io iptables || {
      say "no Docker engine, and none can be installed here (this needs Debian or Ubuntu, and root or sudo)."
      say "install Docker Engine 20.10 or later yourself: https://docs.docker.com/engine/install/"
      return 1
    }
  fi
  engine_answers && return 0
  if [ -d /run/systemd/system ]; then
    say "starting the Docker engine with systemctl"
    as_root systemctl start docker || true
  else
    say "starting dockerd (its log: /var/log/dockerd.log)"
    as_root sh -c 'setsid nohup dockerd >/var/log/dockerd.log 2>&1 </dev/null &' || true
  fi
  wait_for_engine && return 0
  if [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
    say "the Docker engine runs, but you may not talk to it: sudo usermod -aG docker $USER, then log in again"
  else
    say "the Docker engine does not answer within 30 s; its log: /var/log/dockerd.log, or journalctl -u docker"
  fi
  return 1
}

image_exists() { docker image inspect "$1" >/dev/null 2>&1; }

build_image() {
  have debootstrap || apt_install debootstrap debian-archive-keyring || return 1
  can_root || return 1
  local root
  root=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "as_root rm -rf '$root'" EXIT
  say "building $IMAGE from Debian trixie's packages (a few minutes, once)"
  local step=0
  # shellcheck disable=SC2086
  as_root debootstrap --variant=minbase --include="$PACKAGES" trixie "$root" ${LONGSHORE_DEBIAN_MIRROR:-} |
    while read -r line; do
      step=$((step + 1))
      if [ $((step % 60)) = 0 ] || [[ $line == *"Base system installed"* ]]; then say "debootstrap: $line"; fi
    done
  as_root rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt" "$root/usr/share/doc" "$root/usr/share/man"
  as_root tar -C "$root" -c . | docker import \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENV LANG=C.UTF-8' -c 'CMD ["bash"]' - "$IMAGE" >/dev/null
}

image() {
  if [ -n "${LONGSHORE_IMAGE:-}" ]; then
    image_exists "$LONGSHORE_IMAGE" || die "LONGSHORE_IMAGE names $LONGSHORE_IMAGE, which this engine does not have"
    docker tag "$LONGSHORE_IMAGE" "$IMAGE"
    return
  fi
  image_exists "$IMAGE" && return
  if image_exists "$PULLED"; then
    say "taking the local image $PULLED as runner image"
    docker tag "$PULLED" "$IMAGE"
    return
  fi
  build_image && return
  say "pulling $PULLED (over 1 GB)"
  docker pull "$PULLED" && docker tag "$PULLED" "$IMAGE" ||
    die "no runner image: build one with root on Debian or Ubuntu, or pull $PULLED where there is a network"
}

# GitHub's own packages for caches and artifacts are brought with npm.
packages() {
  have npm && return
  apt_install nodejs npm || die "npm is missing: install Node.js with npm (Debian/Ubuntu: npm), or leave out --tests"
}

# In a folder of its own beside the build; made anew when the list of versions changes.
contract() {
  local list=tests/contract/requirements.txt folder="${XDG_CACHE_HOME:-$HOME/.cache}/longshore/contract"
  cmp --silent "$list" "$folder/requirements.txt" && return
  say "the test of the API's description needs schemathesis"
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv ||
    die "Python's venv is missing: install it (Debian/Ubuntu: python3-venv), or leave out --tests"
  rm -rf "$folder"
  python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$list" &&
    cp "$list" "$folder/requirements.txt" ||
    die "schemathesis could not be installed with pip from PyPI (the lines above say why); or leave out --tests"
}

browser() {
  have chromedriver && { have chromium || have chromium-browser || have google-chrome; } && return
  say "the tests of the dashboard need Chromium and chromedriver"
  apt_install chromium chromium-driver ||
    die "no Chromium with chromedriver: install both (Debian: chromium chromium-driver), or leave out --tests"
}

# The package would start a server of its own on Debian; the tests use its programs alone.
postgres() {
  have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
  say "the tests of the store need a PostgreSQL server"
  if [ ! -e /etc/postgresql-common/createcluster.conf ] && can_root; then
    as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  apt_install postgresql ||
    die "no PostgreSQL server: install it (Debian/Ubuntu: postgresql), or leave out --tests"
}

have git || apt_install git || die "git is missing: install it"
compiler
rust
if [ "${1:-}" = --tests ]; then browser; packages; contract; postgres; fi
if [ "${LONGSHORE_NO_ENGINE:-}" = 1 ]; then
  say "LONGSHORE_NO_ENGINE=1: going without a Docker engine"
  exit 3
fi
if ! engine; then exit 3; fi
image
say "ready: $(docker version --format 'Docker Engine {{.Server.Version}}'), image $IMAGE, $(cargo --version)"
