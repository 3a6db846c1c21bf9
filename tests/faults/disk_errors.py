"""A disk that refuses, at every open, write, rename and sync of every writer.

The error names the place and the reason, and the next attempt is right. What libraries write by
themselves (safetensors, Arrow, transformers) is refused as a whole, in their own words.
"""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import commands
from commands import Ground, ended, forked, left
from row import Row
from writers import WRITERS

FAULTS = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT)
CALLS = ("write", "fsync", "replace", "mkdir", "open")
UNNAMED = ("write", "fsync")
"""Those whose errors name no file: they know only a number."""


@contextmanager
def failing(at: int | None, number: int) -> Iterator[Callable[[], int]]:
    """Inside, the n-th call that changes the disk fails; gives how many there were."""
    import safetensors.torch
    import transformers
    from safetensors import SafetensorError

    steps, done = count(1), [0]

    def due() -> bool:
        done[0] = next(steps)
        return done[0] == at

    def wrapped(name: str, call: Any) -> Any:
        def counted(*args: Any, **how: Any) -> Any:
            if (name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR)) and due():
                named = [] if name in UNNAMED else [str(args[0])]
                raise OSError(number, os.strerror(number), *named)
            return call(*args, **how)

        return counted

    def opened(call: Any) -> Any:
        def counted(file: Any, mode: str = "r", *args: Any, **how: Any) -> Any:
            if mode.strip("rbt") and due():
                raise OSError(number, os.strerror(number), str(file))
            return call(file, mode, *args, **how)

        return counted

    def in_rust(call: Any) -> Any:
        def counted(*args: Any, **how: Any) -> Any:
            if due():
                text = f"I/O error: {os.strerror(number)} (os error {number})"
                raise SafetensorError(
                    f'Error while serializing: IoError(Os {{ message: "{text}" }})'
                )
            return call(*args, **how)

        return counted

    words = transformers.PreTrainedTokenizerBase
    with (
        mock.patch.multiple(os, **{name: wrapped(name, getattr(os, name)) for name in CALLS}),
        mock.patch.object(io, "open", opened(io.open)),
        mock.patch.object(safetensors.torch, "save_file", in_rust(safetensors.torch.save_file)),
        mock.patch.object(safetensors.torch, "save_model", in_rust(safetensors.torch.save_model)),
        mock.patch.object(
            transformers.PreTrainedModel,
            "save_pretrained",
            in_rust(transformers.PreTrainedModel.save_pretrained),
        ),
        mock.patch.object(words, "save_pretrained", wrapped("write", words.save_pretrained)),
    ):
        yield lambda: done[0]


@dataclass(frozen=True)
class Place:
    """Something that is written.

    Attributes:
        what: How to call it.
        write: Writes it into a folder, whatever is there.
        right: Whether what is there is what was written.
        step: Every how many calls one fails, for what takes long.
    """

    what: str
    write: Callable[[Path], object]
    right: Callable[[Path], bool]
    step: int = 1


def saved(kind: str) -> Place:
    writer = WRITERS[kind]

    def write(folder: Path) -> None:
        writer.save(2, folder)

    return Place(kind, write, lambda folder: writer.right(writer.read(folder), 2))


def answers() -> Place:
    from xlens.served.answers import Answer, Answers

    given = {f"{n:032x}": Answer(f"Antwort {n}", "stop", 10, n, "m") for n in range(3)}

    def write(folder: Path) -> None:
        kept = Answers(folder, {"model": "m"})
        kept.prepare()
        for request, answer in given.items():
            if request not in kept:
                kept.keep(request, answer)

    def right(folder: Path) -> bool:
        kept = Answers(folder, {"model": "m"})
        return all(kept.get(request) == answer for request, answer in given.items())

    return Place("served answers", write, right)


def stored() -> Place:
    from test_store import KEY, fill, same, tensors

    from xlens.store import Store

    def right(folder: Path) -> bool:
        entry = Store(folder).entry(KEY, shards=2)
        return entry.complete and all(same(entry.read(n), tensors(n)) for n in range(2))

    return Place("the store", lambda f: fill(Store(f).entry(KEY, shards=2)), right)


def conversion(ground: Ground) -> Place:
    from xlens.models import converted
    from xlens.models.sources import resolve

    def write(folder: Path) -> None:
        with mock.patch.dict(os.environ, XLENS_CACHE=str(folder)):
            resolve(ground.gguf, progress=False)

    def right(folder: Path) -> bool:
        with mock.patch.dict(os.environ, XLENS_CACHE=str(folder)):
            source = resolve(ground.gguf, progress=False)
            converted.verify(Path(source.location), source.digest, full=True)
            return not list(folder.glob("models/.xlens-*"))

    return Place("a conversion", write, right)


def pages() -> Place:
    import plotly.graph_objects as go

    from xlens.figures import write_figures

    figure = go.Figure(go.Scatter(y=[1, 2]), {"title": {"text": "Title"}})

    def write(folder: Path) -> None:
        write_figures({"a": figure, "b": figure}, folder / "figures", plotlyjs="../plotly.min.js")

    def right(folder: Path) -> bool:
        names = [f"figures/{n}.{kind}" for n in "ab" for kind in ("html", "json")]
        return all((folder / name).stat().st_size > 100 for name in [*names, "plotly.min.js"])

    return Place("figures and pages", write, right)


def atlas() -> Place:
    import torch
    from safetensors.torch import load_file

    import tiny
    from xlens.testbed.atlas import build, tokenizer, train

    model, words = tiny.model("llama"), tiny.tokenizer("gemma2")

    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        train.export(model, folder / "final")
        tokenizer.save_tokenizer(words, folder / "final")
        build._save_whole(model, folder / "weights.safetensors")
        build.write_index(folder, {"models": {}})

    def right(folder: Path) -> bool:
        kept = load_file(folder / "final" / "model.safetensors")
        wanted = {k: v.half() for k, v in model.state_dict().items()}
        again = tiny.model("llama", seed=1)
        build._reload(again, folder / "weights.safetensors")
        return (
            all(torch.equal(kept[name], wanted[name]) for name in kept)
            and all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())
            and (folder / "final" / "tokenizer.json").is_file()
            and not list(folder.rglob(".xlens-*"))
        )

    return Place("the atlas", write, right)


def tried(place: Place, folder: Path) -> Row:
    """Every call fails once with each error."""
    row, where = Row(f"disk errors, {place.what}"), folder / "disk errors" / "there"
    with failing(None, 0) as calls:
        place.write(where)
        total = calls()
    assert place.right(where), place.what
    row.counts["calls"] = total
    for at in range(1, total + 1, place.step):
        for number in FAULTS:
            shutil.rmtree(where.parent)
            row.tried += 1
            try:
                with failing(at, number) as calls:
                    place.write(where)
                row.counts["went on"] += 1
            except (OSError, ValueError, RuntimeError) as error:
                # What can't be made may be a folder above.
                names = any(str(place) in str(error) for place in (where, *where.parents[:2]))
                if not names or os.strerror(number) not in str(error):
                    row.faults.append(f"call {at}: says {type(error).__name__}: {error}")
            except Exception as error:
                row.faults.append(f"call {at}: {type(error).__name__}: {error}")
            try:
                place.write(where)
                if not place.right(where):
                    row.faults.append(f"call {at}, {os.strerror(number)}: the next is not right")
            except Exception as error:
                row.faults.append(f"call {at}: the next fails: {type(error).__name__}: {error}")
    shutil.rmtree(where.parent)
    return row


def command(name: str, line: Sequence[str], folder: Path, times: int) -> Row:
    """A whole command: config, results, tables, figures, pages, store, whatever it writes."""
    row, said = Row(f"disk errors, {name}"), folder / "disk.said"
    whole, place = folder / "disk" / name / "whole", folder / "disk" / name / "there"

    def counted() -> None:
        with failing(None, 0) as calls:
            try:
                commands.run(line, whole)
            finally:
                (folder / "disk.n").write_text(str(calls()))

    assert ended(forked(counted, said)) == 0, said.read_text()[-2000:]

    def again() -> None:
        with failing(None, 0):
            commands.run(line, place)

    total, wanted = int((folder / "disk.n").read_text()), left(whole)
    row.counts["calls"] = total
    for row.tried in range(1, times + 1):
        at, number = total * row.tried // (times + 1), FAULTS[row.tried % 4]
        said.unlink()

        def work(at: int = at, number: int = number) -> None:
            with failing(at, number):
                commands.run(line, place)

        code, told = ended(forked(work, said)), said.read_text()
        # It is told as it was named: `--out out`.
        error = told[told.rfind("xlens: error:") :]
        row.counts["went on"] += code == 0
        if code and (
            code != 2
            or "Traceback" in told
            or not ("'out" in error or str(place) in error)
            or os.strerror(number) not in error
        ):
            row.faults.append(f"call {at} of {total}: exit code {code}, {told[-400:]}")
        # A library's functions are others here as before, which results tell.
        code = ended(forked(again, said))
        found = left(place)
        if code or found != wanted:
            other = [k for k in {*found, *wanted} if found.get(k) != wanted.get(k)]
            row.faults.append(f"call {at}: the next run ends with {code}, others are {other[:3]}")
        shutil.rmtree(place)
    return row


def rows(ground: Ground, folder: Path, times: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the table, as they come."""
    places = [*map(saved, WRITERS), answers(), stored(), pages(), atlas(), conversion(ground)]
    for place in places:
        if not only or place.what in only:
            yield tried(place, folder)
    for name in (
        "lens",
        "choices",
        "xmrc",
        "harvest",
        "trace",
        "facts",
        "count",
        "inside",
        "steer",
        "align",
        "neurons",
        "fit-lens",
    ):
        if not only or name in only:
            yield command(name, ground.lines()[name], folder, 8 * times)
