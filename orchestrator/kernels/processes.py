"""Prices jobs in several processes, which end when the one that started them does, even where it is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Protocol

from trace_gen.kernels.grid import Job


class PricesJobs(Protocol):
    """What a process does: `Pricer`."""

    def times(self, job: Job) -> list[int]:
        """Return the time (ns) of the job's kernel at each of its sizes."""


def priced(pricer: PricesJobs, jobs: Mapping[int, Job], processes: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the number and the times of each of `jobs`, in the order in which they are done."""
    context = multiprocessing.get_context("spawn")
    most = min(processes, len(jobs))
    with ProcessPoolExecutor(most, mp_context=context, initializer=_begin, initargs=(pricer,)) as pool:
        asked = {pool.submit(_times, job): number for number, job in jobs.items()}
        try:
            for one in as_completed(asked):
                yield asked[one], one.result()
        finally:
            pool.shutdown(cancel_futures=True)


_own: list[PricesJobs] = []
"""Of a process: the pricer that it was started with, which keeps the models that it makes."""


def _begin(pricer: PricesJobs) -> None:
    _own.append(pricer)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End the process when its parent is gone: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _times(job: Job) -> list[int]:
    return _own[0].times(job)
