#!/bin/sh
# Runs a binary on the graphs that appear in a spool folder: for containers that hold a shell but not our Python.
# The protocol is described in spool.py; `python -m external.astra_sim serve` speaks it too.
#
#   serve.sh poll DIR [COMMAND...]    take requests from DIR/requests until told to stop
#   serve.sh stdin DIR [COMMAND...]   take the names of folders in DIR/running from standard input until it ends
#
# Without COMMAND: $ASTRA_SIM_BINARY, else the binary under its own name in the PATH, else where upstream builds it.
# $ORRERY_TIMEOUT: seconds a run may take (default 600).
# Where only our own command is found, `orrery-serve DIR` (if the image has it) polls with one process for all graphs.
set -u

refuse_start() { # CODE REASON
    echo "$2" >&2
    exit "$1"
}

mode=${1:-}
dir=${2:-}
limit=${ORRERY_TIMEOUT:-600}
case $mode in poll | stdin) ;; *) refuse_start 2 "usage: serve.sh poll|stdin DIR [COMMAND...]" ;; esac
[ -d "$dir" ] || refuse_start 2 "the spool folder '$dir' does not exist; make it first"
case $limit in [!0-9.]* | *[!0-9.e+]*) refuse_start 2 "ORRERY_TIMEOUT: '$limit' is not a number of seconds" ;; esac
shift 2

find_binary() {
    if [ -n "${ASTRA_SIM_BINARY:-}" ]; then # nothing else in its place: it would answer for what was named
        command -v "$ASTRA_SIM_BINARY" && return
        echo "ASTRA_SIM_BINARY: '$ASTRA_SIM_BINARY' is no program in this image" >&2
        return 1
    fi
    built=/app/astra-sim/build/astra_analytical/build/bin
    for name in AstraSim_Analytical_Congestion_Unaware AstraSim_Analytical_Congestion_Aware \
        "$built/AstraSim_Analytical_Congestion_Unaware" "$built/AstraSim_Analytical_Congestion_Aware" \
        orrery-analytical; do
        command -v "$name" && return
    done
    echo "no ASTRA-sim binary in this image: set ASTRA_SIM_BINARY to its path in the image" >&2
    return 1
}

if [ $# -eq 0 ]; then
    found=$(find_binary) || exit 127
    if [ "$mode" = poll ] && [ "${found##*/}" = orrery-analytical ] && command -v orrery-serve >/dev/null; then
        exec orrery-serve "$dir"
    fi
    set -- "$found"
fi

# A hash says what ran only for a machine-code binary; a script may call anything.
identity=
program=$(command -v "$1") || { echo "$1: not found in this image" >&2; exit 127; }
if head -c 4 "$program" | grep -q ELF && command -v sha256sum >/dev/null; then
    identity=sha256:$(sha256sum "$program" | cut -d' ' -f1)
fi
description="$*"
if command -v timeout >/dev/null; then
    set -- timeout -s KILL "$limit" "$@"
fi

# What we make in the folder is open to exactly those to whom the folder itself is open.
umask "$(printf %03o $((0777 & ~0$(stat -c %a "$dir"))))" || exit 1
mkdir -p "$dir/requests" "$dir/running" "$dir/answers" "$dir/servers" || exit 1
server=$(uname -n)-$$
alive=$dir/servers/$server

# Whoever may write in the spool may plant links there: what we write is new (set -C), and whatever has its name goes.
make_room() { # FILE...
    for file in "$@"; do
        if [ -e "$file" ] || [ -L "$file" ]; then rm -rf -- "$file"; fi
    done
}

refuse() { # NAME REASON: an answer in place of a request that is none
    rm -rf -- "$dir/running/$1"
    mkdir "$dir/running/$1" || return
    (
        set -C
        cd "$dir/running/$1" || exit
        : >stdout && printf '%s\n' "$2" >stderr && : >identity && echo 125 >exit_code
    )
    mv "$dir/running/$1" "$dir/answers/$1"
}

answer() { # NAME COMMAND...
    name=$1
    shift
    if [ -L "$dir/running/$name" ] || ! [ -d "$dir/running/$name" ]; then
        refuse "$name" "the request is not a folder that can be served"
        return
    fi
    (
        set -C
        cd "$dir/running/$name" || exit
        make_room server stdout stderr exit_code identity
        printf '%s\n' "$server" >server
        if [ -f arguments ] && ! [ -L arguments ]; then
            while IFS= read -r argument; do set -- "$@" "$argument"; done <arguments
            "$@" >stdout 2>stderr </dev/null
            echo $? >exit_code
        else
            : >stdout
            echo "the request cannot be read: arguments is no ordinary file" >stderr
            echo 125 >exit_code
        fi
        printf '%s\n' "$identity" >identity
    )
    mv "$dir/running/$name" "$dir/answers/$name"
}

heartbeat() { # until the process $1 is gone
    while kill -0 "$1" 2>/dev/null; do
        touch -h "$alive" 2>/dev/null || touch "$alive"
        sleep 1
    done
    rm -f "$alive"
}

poll() { # COMMAND...
    idle=0
    while :; do
        for request in "$dir"/requests/*; do
            [ -e "$request" ] || [ -L "$request" ] || continue # no request: the pattern itself
            name=${request##*/}
            mv "$request" "$dir/running/$name" 2>/dev/null || continue # another server was quicker
            answer "$name" "$@"
            idle=0
        done
        idle=$((idle + 1))
        if [ "$idle" -lt 500 ]; then nap=0.005; else nap=0.1; fi
        sleep "$nap" 2>/dev/null || sleep 1
    done
}

trap 'rm -f "$alive"; exit 0' TERM INT
make_room "$alive.new"
(set -C && printf '%s\n%s\n' "$identity" "$description" >"$alive.new") && mv "$alive.new" "$alive" || exit 1
if [ "$mode" = poll ]; then
    heartbeat $$ &
    poll "$@"
else
    while IFS= read -r name; do answer "$name" "$@" & done
    wait
    rm -f "$alive"
fi
