"""The main job: simulate one LLM serving run. See `python main.py --help` and docs/usage.md."""

import sys

from orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
