"""`count_facts`: many files at once, each in a process of its own, here or on other machines."""

import json
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from unicodedata import unidata_version

import pandas as pd
from filelock import Timeout

from xlens import files
from xlens._renamed import renamed
from xlens.bars import tqdm
from xlens.checks import typed
from xlens.corpus.counting import Job, State
from xlens.corpus.machines import Cluster, Files, here, in_processes
from xlens.corpus.pairs import Pairs
from xlens.corpus.result import FactCounts
from xlens.corpus.sources import Layout, check_source, corpus_files
from xlens.corpus.table import check_facts
from xlens.errors import DataError

EPOCH = 2
"""Of what is counted: states of another one are not gone on with."""
PARTS = "parts"


@renamed(reading="layout")
@typed
def count_facts(
    corpora: Sequence[Path],
    facts: pd.DataFrame,
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    window: int | None = None,
    out: Path | None = None,
    workers: int | None = 1,
    executor: str = "local",
    progress: bool = True,
) -> FactCounts:
    """Count the documents of a corpus that hold both subject and object of each fact.

    Args:
        corpora: Files, and folders of files: text, JSON Lines, Parquet; packed or not.
        facts: As `read_facts` gives them.
        layout: How documents are found in the files.
        window: Also count documents in which at most so many words stand between the two.
        out: Folder of the states of all files: the same call goes on with a stopped one.
        workers: Processes, at most one a file; None for as many as there are cores. A script that
            asks for several must begin its work under `if __name__ == "__main__":`, as with any
            processes in Python.
        executor: `local`, or `ray`, `ray://HOST:PORT`: the machines of a Ray cluster, as many files
            at once as it has cores, or as `ray?workers=N` says.
        progress: Show a bar.

    Raises:
        ValueError: something here that can't be, before anything is counted; or a count in `out`
            that is not this one.
    """
    table = check_facts(facts)
    if workers is not None and workers < 1:
        raise DataError(f"workers is {workers}; accepted is the number of processes, 1 or more.")
    cluster = None if executor == "local" else Cluster.of(executor)
    if cluster is not None and workers not in (1, None):
        raise DataError(
            f"workers={workers} are processes of this machine; on a Ray cluster write "
            f"'ray?workers={workers}'."
        )
    paths = corpus_files(corpora)
    pairs = Pairs.of(list(table["subject"]), list(table["object"]), window=window)
    pairs.check()
    for path in paths:
        check_source(path, layout)
    # Facts by their texts, and all by which boundaries between words may differ:
    # tables of Unicode and those of `regex`.
    told = json.dumps(table.to_numpy().tolist(), ensure_ascii=False)
    key = {
        "epoch": EPOCH,
        "facts": sha256(told.encode("utf-8", "replace")).hexdigest(),
        "window": window,
        **asdict(layout),
        "unicode": unidata_version,
        "regex": version("regex"),
    }
    if cluster is not None:
        cluster.check()
    where = cluster or min(workers or cpu_count() or 1, len(paths))
    with _kept(None if out is None else Path(out)) as folder:
        names = [None if folder is None else folder / f"{_name(path)}.json" for path in paths]
        found = list(zip(paths, names, strict=True))
        job = Job(pairs, layout, key)
        # Read before anything is counted: a state of another count is refused here.
        for path, name in found:
            job.state(path, name)
        states = _run(job, found, where, progress)
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
        raise DataError(
            f"Another process counts into {str(out)!r}: wait for it, or give another folder."
        ) from None


def _name(path: Path) -> str:
    """A name for a file's state: files of one name may lie in several folders."""
    return f"{path.name}-{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def _run(job: Job, files: Files, where: Cluster | int, progress: bool) -> list[State]:
    sizes = [path.stat().st_size for path, _ in files]
    if isinstance(where, Cluster):
        counted = where.run(job, files)
    else:
        counted = here(job, files) if where == 1 else in_processes(job, files, where)
    found: dict[int, State] = {}
    with (
        closing(counted),
        tqdm(
            total=sum(sizes), unit="B", unit_scale=True, desc="counting", disable=not progress
        ) as bar,
    ):
        for n, state in counted:
            found[n] = state
            bar.update(sizes[n])
    return [found[n] for n in range(len(files))]
