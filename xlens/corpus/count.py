"""`count_facts`: many files at once, each in a process of its own."""

import json
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from unicodedata import unidata_version

import pandas as pd
from filelock import Timeout
from tqdm import tqdm

from xlens import files
from xlens.checks import typed
from xlens.corpus.counting import Job, State
from xlens.corpus.pairs import Pairs
from xlens.corpus.result import FactCounts
from xlens.corpus.sources import Reading, check_source, corpus_files
from xlens.corpus.table import check_facts

EPOCH = 1
"""Of what is counted: states of another one are not gone on with."""
PARTS = "parts"


@typed
def count_facts(
    corpora: Sequence[Path],
    facts: pd.DataFrame,
    *,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    window: int | None = None,
    out: Path | None = None,
    workers: int | None = 1,
    progress: bool = True,
) -> FactCounts:
    """Count the documents of a corpus that hold both subject and object of each fact.

    Args:
        corpora: Files, and folders of files: text, JSON Lines, Parquet; packed or not.
        facts: As `read_facts` gives them.
        reading: How documents are found in the files.
        window: Also count documents in which at most so many words stand between the two.
        out: Folder of the states of all files: the same call goes on with a stopped one.
        workers: Processes, at most one a file; None for as many as there are cores. A script that
            asks for several must begin its work under `if __name__ == "__main__":`, as with any
            processes in Python.
        progress: Show a bar.

    Raises:
        ValueError: something here that can't be, before anything is counted; or a count in `out`
            that is not this one.
    """
    table = check_facts(facts)
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; accepted is the number of processes, 1 or more.")
    paths = corpus_files(corpora)
    pairs = Pairs.of(list(table["subject"]), list(table["object"]), window=window)
    pairs.check()
    for path in paths:
        check_source(path, reading)
    told = json.dumps(table.to_numpy().tolist(), ensure_ascii=False)
    key = {
        "epoch": EPOCH,
        "facts": sha256(told.encode("utf-8", "replace")).hexdigest(),
        "window": window,
        **asdict(reading),
        "unicode": unidata_version,
        "regex": version("regex"),
    }
    n = min(workers or cpu_count() or 1, len(paths))
    with _kept(None if out is None else Path(out)) as folder:
        kept = [None if folder is None else folder / f"{_name(path)}.json" for path in paths]
        job = Job(pairs, reading, key)
        for path, place in zip(paths, kept, strict=True):
            job.state(path, place)
        states = _run(job, paths, kept, n, progress)
    return FactCounts.of(table, paths, states, key)


@contextmanager
def _kept(out: Path | None) -> Generator[Path | None]:
    """The folder of the states, which no other process counts into."""
    if out is None:
        yield None
        return
    folder = out / PARTS
    files.make(folder)
    try:
        with files.Lock(folder / "lock", f"a count into {str(out)!r}", 1.0):
            yield folder
    except Timeout:
        raise ValueError(
            f"Another process counts into {str(out)!r}: wait for it, or give another folder."
        ) from None


def _name(path: Path) -> str:
    """A name for a file's state: files of one name may lie in several folders."""
    return f"{path.name}-{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def _run(
    job: Job, paths: Sequence[Path], kept: Sequence[Path | None], workers: int, progress: bool
) -> list[State]:
    sizes = [path.stat().st_size for path in paths]
    with tqdm(
        total=sum(sizes), unit="B", unit_scale=True, desc="counting", disable=not progress
    ) as bar:
        if workers == 1:
            states: list[State] = []
            for path, place, size in zip(paths, kept, sizes, strict=True):
                states.append(job.run(path, place))
                bar.update(size)
            return states
        # The automaton is made anew in every process, and processes are begun anew: a fork would
        # take over threads that it can't run.
        pool = ProcessPoolExecutor(
            workers, get_context("spawn"), _begin, (replace(job, pairs=replace(job.pairs)),)
        )
        with pool:
            # The largest first, so that none is left to run alone at the end.
            order = sorted(range(len(paths)), key=lambda n: -sizes[n])
            tasks = {pool.submit(_count, paths[n], kept[n]): n for n in order}
            found: dict[int, State] = {}
            try:
                for task in as_completed(tasks):
                    found[tasks[task]] = task.result()
                    bar.update(sizes[tasks[task]])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [found[n] for n in range(len(paths))]


_jobs: list[Job] = []


def _begin(job: Job) -> None:
    _jobs[:] = [job]


def _count(path: Path, kept: Path | None) -> State:
    return _jobs[0].run(path, kept)
