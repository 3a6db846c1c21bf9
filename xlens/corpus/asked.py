"""`count_in_index`: facts counted by an index that is asked for each pair, a few at a time."""

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from xlens import files
from xlens.bars import tqdm
from xlens.checks import typed
from xlens.corpus.index import Found, Index
from xlens.corpus.table import check_facts
from xlens.corpus.wire import IndexFailure
from xlens.errors import DataError
from xlens.results import Result
from xlens.wording import number_of

Pair = tuple[str, str]
_SHOWN = 6
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class IndexCounts(Result):
    """How often an index finds each fact.

    Attributes:
        facts: `id relation language subject object frequency approx`; `approx`: the index says that
            it is an estimate.
    """

    facts: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """The facts with their counts."""
        return self.facts

    def __str__(self) -> str:
        """What was asked and found, and how much of it the index calls an estimate."""
        index = self.provenance["index"]
        n, never = len(self.facts), int((self.facts["frequency"] == 0).sum())
        said = (
            f"{number_of(n, 'fact')} asked of {index['kind']} {index['index']!r} at "
            f"{index['url']}: {n - never:,} found, {never:,} never"
        )
        estimates = int(self.facts["approx"].sum())
        return f"{said}; {number_of(estimates, 'estimate')}" if estimates else said


@typed
def count_in_index(
    index: Index,
    facts: pd.DataFrame,
    *,
    kept: Path | None = None,
    concurrency: int = 4,
    progress: bool = True,
) -> IndexCounts:
    """Ask an index how often each fact's subject and object occur together.

    A pair that several languages spell alike is asked once.

    Args:
        index: `InfiniGram`, `Elasticsearch`, or another that counts.
        facts: As `read_facts` gives them.
        kept: JSON Lines to which every answer is added when it comes, with its digest: the same
            call goes on with a stopped one. What is damaged in it is said, and asked again.
        concurrency: Most questions under way.
        progress: Show a bar.

    Raises:
        ValueError: no facts, or pairs that this index can't be asked for: all of them are named,
            before anything is asked.
        IndexFailure: a question has no answer; those under way are still waited for, and kept.
    """
    table = check_facts(facts)
    if concurrency < 1:
        raise DataError(f"concurrency is {concurrency}; accepted are 1 or more questions.")
    about = dict(index.about())
    pairs = list(dict.fromkeys(zip(table["subject"], table["object"], strict=True)))
    _check_pairs(index, pairs)
    known = {} if kept is None else _answers(Path(kept), about)
    if kept is not None:
        files.make(Path(kept).absolute().parent)
    left = iter([pair for pair in pairs if pair not in known])
    failure: BaseException | None = None
    with (
        ThreadPoolExecutor(concurrency) as pool,
        tqdm(total=len(pairs), initial=len(known.keys() & set(pairs)), disable=not progress) as bar,
    ):
        flight: dict[Future[Found], Pair] = {}
        while True:
            if failure is None:
                # Only as many as are free: a failure must not find a
                # queue that is asked all the same.
                for pair in islice(left, concurrency - len(flight)):
                    flight[pool.submit(index.count, *pair)] = pair
            if not flight:
                break
            for task in wait(flight, return_when=FIRST_COMPLETED).done:
                pair = flight.pop(task)
                if (error := task.exception()) is not None:
                    if isinstance(error, IndexFailure):
                        error = IndexFailure(f"{pair[0]!r} with {pair[1]!r}: {error}")
                    # The first one is raised, when what was under way is answered and kept.
                    failure = failure or error
                    continue
                known[pair] = task.result()
                if kept is not None:
                    files.append(Path(kept), _line(pair, known[pair], about))
                bar.update()
    if isinstance(failure, IndexFailure) and kept is not None:
        done = len(known.keys() & set(pairs))
        raise IndexFailure(
            f"{failure} {done:,} of {len(pairs):,} pairs are answered, in {str(kept)!r}: the same "
            "call goes on."
        ) from failure
    if failure is not None:
        raise failure
    found = [known[pair] for pair in zip(table["subject"], table["object"], strict=True)]
    return IndexCounts(
        facts=table.assign(frequency=[f.n for f in found], approx=[f.approx for f in found]),
        provenance={"index": about, "versions": {"xlens-interp": version("xlens-interp")}},
    )


def _check_pairs(index: Index, pairs: Sequence[Pair]) -> None:
    """Refuse what can't be asked, all at once."""
    refused: dict[Pair, ValueError] = {}
    for pair in pairs:
        try:
            index.check(*pair)
        except ValueError as error:
            refused[pair] = error
    if refused:
        shown = ", ".join(f"{a!r} with {b!r}" for a, b in [*refused][:_SHOWN])
        raise DataError(
            f"{len(refused)} of {len(pairs)} pairs can't be asked for: {shown}"
            f"{', …' * (len(refused) > _SHOWN)}. The first: {next(iter(refused.values()))}"
        )


def _line(pair: Pair, found: Found, about: Mapping[str, Any]) -> str:
    subject, object_ = pair
    row = {"subject": subject, "object": object_, "n": found.n, "approx": found.approx}
    return files.sealed_json({**row, "index": about}, indent=None)


def _answers(kept: Path, about: Mapping[str, Any]) -> dict[Pair, Found]:
    """What this index, asked in this way, has answered.

    Raises:
        ValueError: a file of somebody else, to which nothing is added.
    """
    found: dict[Pair, Found] = {}
    if not kept.is_file():
        return found
    *ended, last = kept.read_bytes().split(b"\n")
    damaged: list[int] = []
    ours = 0
    for number, line in enumerate([*ended, last], 1):
        if not line.strip():
            continue
        row = _row(kept, line)
        if row is None:
            damaged += [number] * (number <= len(ended))  # without an end, a kill cut it off
            continue
        ours += 1
        if row["index"] == about:
            found[row["subject"], row["object"]] = Found(row["n"], row["approx"])
    if damaged and not ours:
        raise DataError(
            f"{str(kept)!r}, line {damaged[0]} is no answer of an index: give a file that "
            "count_in_index wrote, or a new one."
        )
    if damaged:
        numbers = ", ".join(map(str, damaged[:_SHOWN])) + ", …" * (len(damaged) > _SHOWN)
        _log.warning(
            "%s: damaged, and not used: line %s. What stood there is asked again.", kept, numbers
        )
    return found


def _row(kept: Path, line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is not what was written."""
    try:
        if "sha256" not in json.loads(line):
            return None
        return files.unsealed_json(kept, line, "")
    except (ValueError, TypeError, RecursionError):
        return None
