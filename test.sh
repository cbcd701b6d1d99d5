#!/usr/bin/env bash
# Sets up .venv with the test tools and runs the tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
./setup.sh dev,docker
if [ $# -eq 0 ]; then set -- -n 2 -m "not long" tests; fi
exec "${ORRERY_VENV:-.venv}/bin/python" -m pytest "$@"
