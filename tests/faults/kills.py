"""`kill -9` at any moment: what was kept is there, and the end is as if nothing had happened.

A command is killed before one of its changes of the disk, or in the middle of a write, started
again, killed again, and so on; what is there at the end is compared, byte for byte,
with what a run leaves that was let alone.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import commands
from commands import Ground, ended, forked, left
from row import Row
from test_store_crash import intercepted
from writers import FOLDERS, WRITERS

from xlens.runs import ACROSS

HEADERS = ("result.json", "activations.json", "subspace.json")
LOST_SECONDS = 20
BUDGET = 40


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killing(point: int | None, half: bool) -> Any:
    """Inside, the process dies before its n-th change of the disk, or within its n-th write."""
    steps, real_write = count(), os.write

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if (name == "write" or not half) and next(steps) == point:
            if half:
                real_write(args[0], bytes(args[1])[: len(args[1]) // 2])
            die()

    return intercepted(hook)


def changes(work: Callable[[], object], said: Path) -> int:
    """How often a process that does `work` changes the disk."""

    def counted() -> None:
        seen = count()
        with intercepted(lambda *_: next(seen)):
            try:
                work()
            finally:
                said.with_suffix(".n").write_text(str(next(seen)))

    assert ended(forked(counted, said)) == 0, said.read_text()[-2000:]
    return int(said.with_suffix(".n").read_text())


def results(place: Path) -> dict[Path, int]:
    """The saved results, all of them readable, and the inode of each."""
    from xlens import files

    found: dict[Path, int] = {}
    for name in HEADERS:
        for header in place.glob(f"out/**/{name}"):
            if any(files.is_draft(part) for part in (header.parent, *header.parents)):
                continue
            files.unsealed(
                header.parent, name, lambda _: None, known=lambda _: None, again="", verify=True
            )
            found[header] = header.stat().st_ino
    return found


def command(name: str, line: Sequence[str], folder: Path, times: int) -> Row:
    """One command, killed and started again."""
    row, dice, said = Row(f"kill -9, {name}"), random.Random(name), folder / f"{name}.said"
    whole, place = folder / name / "whole", folder / name / "killed"
    n = changes(lambda: commands.run(line, whole), said)
    row.counts["changes of the disk"] = n
    wanted, before = left(whole), dict[Path, int]()
    while True:
        last = row.tried >= times
        half = dice.random() < 0.3
        point = None if last else dice.randrange(max(30, n // 6))

        def work(point: int | None = point, half: bool = half) -> None:
            with killing(point, half):
                commands.run(line, place)

        code = ended(forked(work, said))
        try:
            now = results(place)
        except ValueError as error:
            row.faults.append(f"unreadable: {error}")
            return row
        # What is about several models is made anew each time, from theirs.
        mine = {p: inode for p, inode in before.items() if ACROSS not in p.parts}
        row.faults += [f"lost: {p}" for p, inode in mine.items() if now.get(p) != inode]
        before = now
        if code == 0:
            found = left(place)
            row.faults += [
                f"after {row.tried} kills {p} is another"
                for p in sorted({*wanted, *found})
                if wanted.get(p) != found.get(p)
            ]
            if last:
                return row
            shutil.rmtree(place)
            before = {}
            row.counts["ends compared"] += 1
        elif code == -signal.SIGKILL:
            row.tried += 1
        else:
            row.faults.append(f"ended with {code}: {said.read_text()[-500:]}")
            return row


def saves(kind: str, folder: Path, times: int) -> Row:
    """A saved thing, overwritten again and again: the old one or the new one is there."""
    row, dice, place = Row(f"kill -9, saving a {kind}"), random.Random(kind), folder / "saved" / "a"
    writer, said = WRITERS[kind], folder / f"{kind}.said"
    place.parent.mkdir(parents=True, exist_ok=True)
    writer.save(1, place)
    n = changes(lambda: writer.save(2, place), said)
    for row.tried in range(1, times + 1):
        point, half, new = dice.randrange(n), dice.random() < 0.3, row.tried % 2 + 1

        def work(point: int = point, half: bool = half, new: int = new) -> None:
            with killing(point, half):
                writer.save(new, place)

        ended(forked(work, said))
        # A run that is begun anew is no run until it is whole.
        if kind in FOLDERS and not writer.one_or_two(place):
            row.faults.append(f"{row.tried}: neither the old nor the new one")
    if not writer.saved_alone(place):
        row.faults.append("the last one is not right, or not alone")
    return row


def conversions(ground: Ground, folder: Path, times: int) -> Row:
    """A GGUF file that is converted, killed at any time: also within a library's own writes."""
    from xlens.models import sources

    row, dice, said = Row("kill -9, converting a model"), random.Random(5), folder / "convert.said"
    whole, place = folder / "convert" / "whole", folder / "convert" / "killed"

    def convert(where: Path) -> None:
        os.environ["XLENS_CACHE"] = str(where)
        sources.resolve(ground.gguf, progress=False)

    start = time.monotonic()
    assert ended(forked(lambda: convert(whole), said)) == 0, said.read_text()
    took, wanted = time.monotonic() - start, left(whole)
    while row.tried < times:
        pid = forked(lambda: convert(place), said)
        time.sleep(dice.random() * took)
        os.kill(pid, signal.SIGKILL)
        if ended(pid) == 0:
            shutil.rmtree(place)
            continue
        row.tried += 1
        kept = [p for p in place.glob("models/*") if p.is_dir() and not p.name.startswith(".")]
        for model in kept:  # under its name only when it is whole
            mine = {p.name: p.read_bytes() for p in model.iterdir()}
            there = {p.name: p.read_bytes() for p in (whole / "models" / model.name).iterdir()}
            if mine != there:
                row.faults.append(f"{row.tried}: half of a model has its name")
            shutil.rmtree(model)
    assert ended(forked(lambda: convert(place), said)) == 0
    if left(place) != wanted or len(list(place.glob("models/.xlens-*"))):
        row.faults.append("another model, or something left beside it")
    return row


def verbs() -> tuple[Any, dict[str, Callable[[Path], object]]]:
    """A model, and what runs it on a hundred prompts, a few in a pass."""
    import kit
    import torch

    import tiny
    from xlens import Prompt, engine
    from xlens.engine import interventions

    for module, name, tokens in (
        ("tally", "SHARD_TOKENS", 2**14),
        ("variants", "TRUNK_TOKENS", 12_000),
    ):
        # As many passes as with the budget that users have.
        setattr(import_module(f"xlens.engine.{module}"), name, tokens * BUDGET // 2048)
    model = kit.fresh("llama")
    texts = [text[n : n + 12] for text in tiny.TEXT.values() for n in range(0, 40, 4)]
    asked = [Prompt(text, "de", str(n)) for n, text in enumerate(texts)]
    push = interventions.add(torch.ones(model.d_model), layers=1, slot="last", strength=0.5)
    ways = {"plain": (), "pushed": push}
    own: dict[str, Any] = {"token_budget": BUDGET, "progress": False}
    found: dict[str, Callable[..., object]] = {
        "harvest": lambda **kept: engine.harvest(model, asked, **kept),
        "score": lambda **kept: engine.score(model, asked, [" ja", " nein"], **kept),
        "generate": lambda **kept: engine.generate(model, asked, max_new_tokens=4, **kept),
        "relevance": lambda **kept: engine.relevance(model, asked, targets=[5] * 120, **kept),
        "tally": lambda **kept: engine.tally(model, asked, **kept),
        "variants": lambda **kept: engine.score_variants(model, asked, [" ja"], ways, **kept),
    }
    return model, {
        name: lambda store, run=run: run(store=store, **own) for name, run in found.items()
    }


def work_lost(verb: str, folder: Path, times: int) -> Row:
    """How much is computed again after a kill, where a pass of the model takes a second."""
    import kit

    from xlens.store import parts

    row = Row(f"kill -9 within {verb}, a pass taking a second")
    model, every = verbs()

    def passes(store: Path, stop: int | None) -> int:
        """Of a run in a process of its own; the process dies at the one numbered `stop`."""
        told, said = folder / f"{verb}.n", folder / f"{verb}.said"

        def work() -> None:
            with kit.passes(model, stop=stop, how=die) as counted:
                clock = SimpleNamespace(monotonic=lambda: float(len(counted)))
                with mock.patch.object(parts, "time", clock):
                    every[verb](store)
                told.write_text(str(len(counted)))

        code = ended(forked(work, said))
        assert code == (0 if stop is None else -signal.SIGKILL), said.read_text()[-2000:]
        return int(told.read_text()) if stop is None else stop

    whole = passes(folder / f"{verb} whole", None)
    row.counts["passes"] = whole
    for row.tried in range(1, times + 1):
        store = folder / f"{verb} {row.tried}"
        done = passes(store, whole * row.tried // (times + 1))
        again = done + passes(store, None) - whole
        row.counts["s lost at most"] = max(row.counts["s lost at most"], again)
        if again > LOST_SECONDS:
            row.faults.append(f"killed at pass {done} of {whole}: {again} s are computed again")
    return row


def rows(ground: Ground, folder: Path, times: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the table, as they come."""
    for kind in WRITERS:
        if not only or "saves" in only:
            yield saves(kind, folder, times)
    for verb in verbs()[1]:
        if not only or "work" in only:
            yield work_lost(verb, folder, 4)
    if not only or "conversions" in only:
        yield conversions(ground, folder, times)
    for name, line in ground.lines().items():
        if not only or name in only:
            yield command(name, line, folder, times)
