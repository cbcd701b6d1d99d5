"""The main job: simulate one LLM serving run. See `python main.py --help` and docs/usage.md."""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  (nothing of ours can be imported there, not even to say so)
        print(
            "error: Orrery needs Python 3.11 or newer; ./setup.sh finds one and makes .venv/bin/python", file=sys.stderr
        )
        sys.exit(2)
    from orchestrator.cli import main

    sys.exit(main())
