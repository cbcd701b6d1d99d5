"""One process of a fuzzing session: atheris around one target. Started by `benchmarks.fuzz`, not by hand.

A finding does not end it: the input and its traceback are kept, one for each place in the code, and it goes on. A hang
or too much memory ends it, with the input in the same folder.
"""

from __future__ import annotations

import re
import sys
import tempfile
import traceback
from pathlib import Path
from random import Random

PACKAGES = [
    "foundation",
    "astra_files",
    "trace_gen",
    "converters",
    "orchestrator",
    "analytical",
    "external",
    "trace_test",
]


def main() -> None:
    """Fuzz the target named first; what follows are libFuzzer's own arguments, the folder of the session last."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    reader, session, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=PACKAGES, enable_loader_override=False):
        from benchmarks.fuzz import corpus, mutating
        from benchmarks.fuzz.target import Target, check, targets

        target: Target = targets.get(reader)
        folder = Path(tempfile.mkdtemp(prefix=f"orrery-fuzz-{reader}-"))
        seeds = [path.read_bytes() for path in corpus.files(reader)]
        findings = Findings(Path(session) / "findings")

        def one(content: bytes) -> None:
            try:
                check(target, content, folder)
            except Exception as error:
                findings.keep(content, error)

        for content in seeds:  # what is imported late is instrumented before the counting begins
            one(content)
        mutate = target.mutate or mutating.token_mutation((*mutating.words_of(seeds), *target.words))

        def mutator(content: bytes, most: int, seed: int) -> bytes:
            random = Random(seed)
            if random.random() < 0.4:
                return bytes(atheris.Mutate(content, most))
            return mutate(content, random)[:most]

        atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutator)
        atheris.Fuzz()


class Findings:
    """Keeps the shortest input for each kind of exception and line that raised it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, content: bytes, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        name = re.sub(r"\W+", "-", f"{type(error).__name__}-{Path(where.filename).stem}-{where.lineno}")
        path = self._folder / name
        if path.exists() and len(content) >= path.stat().st_size:
            return
        path.write_bytes(content)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main()
