#!/usr/bin/env bash
# Builds the images on a base made on the spot and really runs Compose: the main job, the backend container beside it,
# and the docker backend's tests. Installs and starts what is missing (root, Debian) and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
python="$(cd "${ORRERY_VENV:-.venv}/bin" && pwd)/python"
work="$(mktemp -d)"
base=orrery-ci-base
export COMPOSE_PROJECT_NAME=orrery-ci ORRERY_IMAGE=orrery-ci-sim ASTRA_SIM_IMAGE=orrery-ci-astra-sim
export ORRERY_BASE_IMAGE=$base ORRERY_BUILD_NETWORK=host
export ORRERY_FOLDER="$work/user"
[ ! -f /etc/ssl/certs/ca-certificates.crt ] || export PIP_CERT=/etc/ssl/certs/ca-certificates.crt
docker="$(command -v docker || echo /usr/bin/docker)" # where Debian puts it
# A package index that this machine's pip is configured to use is the build's too.
PIP_INDEX_URL="${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}"
export PIP_INDEX_URL
say() { echo "-- compose: $* ($(date +%T))"; }
fail() { echo "compose: $*" >&2; exit 1; }

install_programs() {
    local missing=()
    command -v dockerd >/dev/null && [ -x "$docker" ] || missing+=(docker.io)
    command -v docker-compose >/dev/null || missing+=(docker-compose)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 ||
        { tail -n 20 "$work/apt.log"; fail "apt-get failed"; }
}

start_daemon() {
    "$docker" info >/dev/null 2>&1 && return
    say "starting dockerd"
    dockerd >"$work/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 60); do
        "$docker" info >/dev/null 2>&1 && return
        kill -0 "$daemon" 2>/dev/null || break
        sleep 1
    done
    tail -n 20 "$work/dockerd.log"
    fail "dockerd does not start"
}

make_base() {
    say "making the base image"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" \
        ${ORRERY_DEBIAN_MIRROR:+"$ORRERY_DEBIAN_MIRROR"} >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log"; fail "debootstrap failed"; }
    # The certificates this machine trusts: a build behind its proxy must trust them too.
    [ -z "${PIP_CERT:-}" ] || cp "$PIP_CERT" "$work/root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
    tar -C "$work/root" -c . | "$docker" import - "$base" >/dev/null
    rm -rf "$work/root"
}

clean_up() {
    local status=$?
    trap - EXIT
    if "$docker" info >/dev/null 2>&1; then
        docker-compose --profile astra-sim down --volumes --remove-orphans >/dev/null 2>&1 || true
        "$docker" ps --all --quiet --filter label=orrery=astra-sim | xargs -r "$docker" rm --force >/dev/null || true
        if [ -f "$work/before" ]; then
            remove_new_images
            inventory >"$work/after"
            diff "$work/before" "$work/after" ||
                { echo "compose: containers, volumes or images were left behind" >&2; status=1; }
        fi
    fi
    if [ -n "${daemon:-}" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}

remove_new_images() { # ours, and the unnamed ones of the steps that built them
    "$docker" image rm --force "$ORRERY_IMAGE" "$ASTRA_SIM_IMAGE" "$base" >/dev/null 2>&1 || true
    while images | comm -13 "$work/images" - | grep . >"$work/new"; do
        xargs "$docker" image rm <"$work/new" >/dev/null 2>"$work/removal.log" && continue
        # An image goes only after those made from it: some of them must have gone in this round.
        [ "$(images | comm -13 "$work/images" - | wc -l)" -lt "$(wc -l <"$work/new")" ] || break
    done
}

images() { "$docker" images --all --quiet --no-trunc | sort -u; }

inventory() {
    "$docker" ps --all --quiet --no-trunc | sort
    "$docker" volume ls --quiet | sort
    images
}

same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

run_the_main_job() {
    local job=(main.py --model_name meta-llama/Llama-3.1-8B-Instruct --hardware RTX3090 --npu_num 2 --dataset work.tsv)
    # A folder of an ordinary user that nobody else may enter: results must land in it and be that user's.
    install -d -m 0700 -o 12345 -g 23456 "$ORRERY_FOLDER"
    printf '%s\t%s\t%s\n' 120 6 0 40 9 5000000 300 4 20000000 >"$ORRERY_FOLDER/work.tsv"
    say "docker-compose run sim ${job[*]}"
    docker-compose run --rm sim "${job[@]}" --output embedded.csv
    [ "$(stat -c %u:%g "$ORRERY_FOLDER/embedded.csv")" = 12345:23456 ] || fail "the results are not the user's"
    (cd "$ORRERY_FOLDER" && "$python" "$repository/${job[0]}" "${job[@]:1}" --output "$work/here.csv" >/dev/null)
    same "$ORRERY_FOLDER/embedded.csv" "$work/here.csv"

    say "the same with a backend container beside it"
    docker-compose --profile astra-sim up -d astra-sim
    docker-compose --profile astra-sim run --rm sim "${job[@]}" --backend spool --output spool.csv
    same "$ORRERY_FOLDER/spool.csv" "$work/here.csv"
    docker-compose --profile astra-sim down --volumes
}

test_the_docker_backend() {
    say "the docker backend's tests"
    ORRERY_TEST_IMAGE="$ASTRA_SIM_IMAGE" "$python" -m pytest -q -rs tests/external/test_container.py
}

trap clean_up EXIT
install_programs
start_daemon
images >"$work/images"
inventory >"$work/before"
make_base
say "building the images"
docker-compose --profile astra-sim build --quiet
run_the_main_job
test_the_docker_backend
say "passed"
