"""Random damage to what is kept: none is silently another value, and errors name file and fix."""

import contextlib
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import commands
import numpy as np
from commands import Ground, ended, forked
from damage import damage
from row import Row
from writers import WRITERS

_FIXES = ("new", "again", "save(", "own class", "overwrite", "delete")
_HEADERS = ("result.json", "activations.json", "subspace.json")


class Heard(logging.Handler):
    """What xlens says in warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


@contextlib.contextmanager
def hearing() -> Iterator[Heard]:
    heard, log = Heard(), logging.getLogger("xlens")
    log.addHandler(heard)
    try:
        yield heard
    finally:
        log.removeHandler(heard)


def trials(
    what: str,
    whole: Path,
    times: int,
    read: Callable[[Path], Any],
    right: Callable[[Any], bool],
    chosen: Callable[[Path], Sequence[Path]] = lambda folder: sorted(
        p for p in folder.rglob("*") if p.is_file()
    ),
) -> Row:
    """Damage a copy of `whole` and read it, again and again.

    Args:
        what: How to call it.
        whole: A folder as it was written.
        times: How often.
        read: Reads a folder; raises `ValueError`, or tells in a warning.
        right: Whether what was read is what was written.
        chosen: The files of a folder that are damaged.
    """
    row, dice, folder = Row(f"corruptions, {what}"), random.Random(what), whole.with_name("damaged")
    errors = named = 0
    while row.tried < times:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        if (did := damage(chosen(folder), dice)) is None:
            continue
        row.tried += 1
        path, _ = did
        place = path.parent if path.name in _HEADERS and not path.exists() else path
        with hearing() as heard:
            try:
                found = read(folder)
            except ValueError as error:
                errors += 1
                said = f"{error}"
            except Exception as error:
                row.faults.append(f"{did}: {type(error).__name__}: {error}")
                continue
            else:
                said = heard.text
                if right(found):  # a blank in a header, say, changes nothing
                    row.counts["harmless"] += 1
                    continue
                if not said:
                    row.faults.append(f"silently wrong: {did}")
                    continue
                errors += 1
        named += str(place) in said and any(fix in said for fix in _FIXES)
    shutil.rmtree(folder, ignore_errors=True)
    row.counts |= {"refused": errors, "of these with file and fix": named}
    if named < 0.95 * errors:
        row.faults.append(f"{errors - named} of {errors} errors name no file or no fix")
    return row


def plain(value: Any) -> Any:
    """What tells a value from another one."""
    from numpy import ndarray
    from pandas import DataFrame
    from torch import Tensor

    match value:
        case DataFrame():
            return value.to_json()
        case Tensor() | ndarray():
            return np.asarray(value).tobytes()
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case _:
            return str(value)


def run_directory(name: str, ground: Ground, folder: Path, times: int) -> Iterator[Row]:
    """The folder of a command: what its report is made from, and the report."""
    from xlens.report import write_report
    from xlens.runs import RunDirectory

    place, said = folder / f"runs of {name}", folder / f"{name}.said"
    line = ground.lines()[name]
    assert ended(forked(lambda: commands.run(line, place), said)) == 0, said.read_text()

    def read(where: Path) -> Any:
        run = RunDirectory.open(where)
        parts = {
            (model, name): part
            for model in run.results()
            for name, part in run.parts(model).items()
        }
        told = {
            (*key, field): plain(value)
            for key, part in parts.items()
            for field, value in vars(part).items()
        }
        return run.config, run.provenance, told

    def inputs(where: Path) -> list[Path]:
        own = [where / "config.yaml", where / "provenance.json"]
        return [*own, *(p for p in sorted(where.glob("results/**/*")) if p.is_file())]

    whole = place / "out"
    wanted = read(whole)
    what = f"run directories of {name}"
    yield trials(what, whole, times, read, lambda found: found == wanted, inputs)
    page = (whole / "report.html").read_bytes()
    few = max(1, times // 10)

    def report(where: Path) -> bytes:
        return write_report(RunDirectory.open(where)).read_bytes()

    what = f"the reports of {name}"
    yield trials(what, whole, few, report, lambda found: found == page, inputs)
    if (whole / "adapters").is_dir():
        yield training(whole / "adapters", times)


def training(whole: Path, times: int) -> Row:
    """Adapters and the checkpoints on the way to them, as loading one checks them."""
    from xlens.models.adapters import CONFIG, SEAL, check_sealed
    from xlens.models.series import find_series
    from xlens.training.fit import Training

    # Who goes on, or reads a series, knows the places: none is missed because its header is gone.
    results = sorted(path.parent.relative_to(whole) for path in whole.rglob("result.json"))
    series = sorted({path.parents[1].relative_to(whole) for path in whole.rglob(CONFIG)})

    def read(where: Path) -> Any:
        for place in series:
            find_series(str(where / place), ["all"])
        sealed = sorted({p.parent for name in (CONFIG, SEAL) for p in where.rglob(name)})
        for folder in sealed:
            check_sealed(folder)
        found = [Training.load(where / place) for place in results]
        kept = [p for folder in sealed for p in sorted(folder.iterdir()) if p.name != SEAL]
        return [p.read_bytes() for p in kept], [plain(vars(each)) for each in found]

    wanted = read(whole)
    return trials("trained adapters", whole, times, read, lambda found: found == wanted)


def conversion(ground: Ground, folder: Path, times: int) -> Row:
    """Converted models: damage is told, and they are made again."""
    from xlens.models import converted
    from xlens.models.sources import resolve

    source = resolve(ground.gguf, progress=False)
    model, whole = Path(source.location), folder / "model" / "whole"
    shutil.copytree(model, whole)
    listed = json.loads((whole / converted.MANIFEST).read_text())["files"]

    def read(where: Path) -> Any:
        shutil.rmtree(model)
        shutil.copytree(where, model)
        with hearing() as heard:
            found = converted.find_converted(source.name, source.digest or "")
        if found is None:
            raise ValueError(heard.text.replace(str(model), str(where)))
        return json.loads((model / converted.MANIFEST).read_text())["files"]

    return trials("converted models", whole, times, read, lambda found: found == listed)


def answers(folder: Path, times: int) -> Row:
    """Answers of served models: those that are damaged are told of, and asked again."""
    from xlens.served.answers import Answer, Answers

    kind = {"endpoint": "http://localhost/v1", "model": "m"}
    given = {f"{n:032x}": Answer(f"Antwort {n}", "stop", 10 + n, n, "m-1") for n in range(9)}
    whole = folder / "answers" / "whole"
    kept = Answers(whole, kind)
    kept.prepare()
    for request, answer in given.items():
        kept.keep(request, answer)
    row = Row("wrong answers")

    def read(where: Path) -> dict[str, Answer | None]:
        found = Answers(where, kind)
        return {request: found.get(request) for request in given}

    def right(found: dict[str, Answer | None]) -> bool:
        """Also where the file ends before its end, as a kill leaves it, or is gone."""
        row.counts["asked again without a word"] += None in found.values()
        return all(found[request] in (None, answer) for request, answer in given.items())

    def told(where: Path) -> dict[str, Answer | None]:
        with hearing() as heard:
            found = read(where)
        if heard.text and None in found.values() and right(found):
            row.counts["asked again without a word"] -= 1
            raise ValueError(heard.text)
        return found

    done = trials("served answers", whole, times, told, right, lambda f: list(f.glob("*/*.jsonl")))
    done.counts += row.counts
    return done


def atlas(folder: Path, times: int) -> Row:
    """The weights that come with xlens."""
    from xlens.models import checked
    from xlens.models.shipped import find_shipped

    found = find_shipped("atlas")
    assert found
    whole = folder / "atlas" / "whole"
    shutil.copytree(found.folder, whole / "final")
    shutil.copy(found.folder.parent / "index.json", whole)

    def read(where: Path) -> bool:
        checked.check_shipped(where, "final")
        return False  # where a byte is another, it is not right

    def files(where: Path) -> list[Path]:
        return sorted((where / "final").iterdir())

    return trials("the atlas", whole, times, read, bool, files)


def rows(ground: Ground, folder: Path, times: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the table, as they come."""
    for kind, writer in WRITERS.items():
        if only and kind not in only:
            continue
        whole = folder / f"a {kind}" / "whole"
        writer.save(1, whole)
        yield trials(kind, whole, times, writer.read, lambda found, w=writer: w.right(found, 1))
    for name in ("lens", "align", "neurons", "fit-lens", "phases"):
        if not only or name in only:
            yield from run_directory(name, ground, folder, times)
    if not only or "conversion" in only:
        yield conversion(ground, folder, times)
    if not only or "answers" in only:
        yield answers(folder, times)
    if not only or "atlas" in only:
        yield atlas(folder, times)
