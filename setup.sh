#!/usr/bin/env bash
# Makes .venv with what the given extras need; does nothing when it is already as pyproject.toml asks.
# Usage: ./setup.sh [EXTRAS]      for instance ./setup.sh dev,docker
# The extra `fast` is among them wherever numba can be had; what it compiles is compiled here, once.
set -euo pipefail
cd "$(dirname "$0")"
extras="fast${1:+,$1}"
venv="${ORRERY_VENV:-.venv}"

fail() { echo "error: $*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        echo "$candidate"
        return
    done
    fail "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3 $0"
}

make_venv() {
    local python="$1"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv"
    "$python" -m venv "$venv"
}

install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${1:+[$1]}"; }

# A run of two requests loads all that long runs load.
compile_loops() {
    "$venv/bin/python" -c 'import numba' 2>/dev/null || return 0
    echo "compiling the engine loop (once, and again when its sources change) ..." >&2
    "$venv/bin/python" main.py --model_name openai-community/gpt2 --hardware H100 --scheduling vllm --num_prompts 2 \
        --compiled_engines always --quiet || echo "the engine loop cannot be compiled; runs do without" >&2
}

# One stamp for each set of extras, holding what it was installed from; without extras any of them will do.
wanted="$(cksum < pyproject.toml) $PWD"
stamp="$venv/.installed-$extras"
stamps=("$stamp")
[ $# -gt 0 ] || stamps+=("$venv"/.installed-*)
for made in "${stamps[@]}"; do
    if [ -x "$venv/bin/python" ] && [ "$(cat "$made" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
done
echo "setting up $venv (once, and again when pyproject.toml changes) ..." >&2
[ -x "$venv/bin/python" ] || make_venv "$(find_python)"
install "$extras" || install "${1:-}" || fail "installing the dependencies failed; pip's message is above"
compile_loops
echo "$wanted" > "$stamp"
