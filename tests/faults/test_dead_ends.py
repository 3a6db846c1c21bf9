"""Every way of damage, and every advice that is printed: each leads to a sound store."""

import random
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from damage import damage
from test_store import KEY, change, edited, fill, rows, same, tensors

from xlens.cli import main
from xlens.store import Store, StoreError, entry_id

FILES = {
    "manifest": "manifest.json",
    "journal": "journal.jsonl",
    "shard": "shard-00001.safetensors",
    "rows": "shard-00001.parquet",
}
COMMAND = re.compile(r"`xlens (store [^`]+)`")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: change(path, lambda b: b[: len(b) // 2]),
    "begins with junk": lambda path: change(path, lambda b: b"?" + b[1:]),
    "zeros": lambda path: change(path, lambda b: bytes(len(b))),
    "not JSON": lambda path: path.write_bytes(b"\xff{]\n7\n[]\n"),
    "other JSON": lambda path: path.write_bytes(b'{"event": "entry"}\n{"event": "drop"}\n'),
    "longer": lambda path: change(path, lambda b: b + b"\n{}\n"),
    "a folder": as_folder,
}


def of_another_format(folder: Path) -> None:
    for name in ("manifest.json", "journal.jsonl"):
        for old in ('"format": 1', '"format":1'):
            if (folder / name).exists() and old in (folder / name).read_text(encoding="utf-8"):
                edited(folder / name, old, old[:-1] + "7")


def of_another_key(folder: Path) -> None:
    other = Store(folder.parent / "other").entry({**KEY, "model": "xyz"}, shards=3)
    if (folder / "manifest.json").exists():
        fill(other)
    shutil.rmtree(folder)
    shutil.move(other.path, folder)
    shutil.rmtree(folder.parent / "other")


def ways() -> dict[str, Callable[[Path], object]]:
    """Each file in each way, and manifest and journal in any two."""
    found: dict[str, Callable[[Path], object]] = {
        f"{file} {way}": lambda folder, f=FILES[file], do=do: do(folder / f)
        for file, (way, do) in product(FILES, WAYS.items())
    }
    for (one, do), (two, also) in product(WAYS.items(), WAYS.items()):
        found[f"manifest {one}, journal {two}"] = lambda folder, do=do, also=also: (
            do(folder / "manifest.json"),
            also(folder / "journal.jsonl"),
        )
    return found | {"another format": of_another_format, "another key": of_another_key}


@pytest.fixture(scope="module", params=["whole", "half"])
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an entry, finished or not."""
    root = tmp_path_factory.mktemp("begun") / "st ore"
    entry = Store(root).entry(KEY, shards=3)
    for shard in range(2):
        entry.write(shard, tensors(shard), rows(shard))
    if request.param == "whole":
        fill(entry)
    return root


def run(root: Path) -> str:
    """What a run with the same key says; nothing if all went well, with the right values."""
    try:
        entry = fill(Store(root).entry(KEY, shards=3))
        assert all(same(entry.read(n), tensors(n)) for n in range(3)) and len(entry.rows()) == 9
    except StoreError as error:
        return str(error)
    return ""


def command(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `xlens WORDS` says."""
    with suppress(SystemExit):
        main(shlex.split(words))
    captured = capsys.readouterr()
    return captured.out + captured.err


def walk(
    root: Path,
    said: str,
    done: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Follow every advice in what was said, each in a store of its own, and what it leads to."""
    advice = set(COMMAND.findall(said)) - set(done)
    assert advice or "same key" in said, f"no way out after {done}: {said}"
    for words in sorted(advice):
        branch = root.with_name(f"{root.name}+")
        assert shlex.quote(str(root)) in words, f"the advice is for another store: {words}"
        shutil.copytree(root, branch)
        here = words.replace(shlex.quote(str(root)), shlex.quote(str(branch)))
        try:
            told = command(here, capsys).replace(str(branch), str(root))
            problem = run(branch).replace(str(branch), str(root))
            if problem:
                walk(
                    branch, (told + problem).replace(str(root), str(branch)), (*done, here), capsys
                )
            else:
                report = Store(branch).verify()
                assert report.ok and not report.damage, f"{done} {words}: {report.damage}"
        finally:
            shutil.rmtree(branch)


@pytest.mark.parametrize("name", ways())
def test_every_advice_is_a_way_out(
    begun: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / begun.name
    shutil.copytree(begun, root)
    folder = root / entry_id(KEY)
    if "manifest" in name and not (folder / "manifest.json").exists():
        pytest.skip("has no manifest")
    ways()[name](folder)
    listed = command(f"store ls --root {shlex.quote(str(root))}", capsys)
    looked = command(f"store verify --root {shlex.quote(str(root))}", capsys)
    for said in (listed, looked):
        if COMMAND.search(said):
            walk(root, said, (), capsys)
    if problem := run(root):
        walk(root, problem, (), capsys)
    else:
        # A run mends by itself what it needs; the rest is named by `verify` and mended by it.
        command(f"store verify --repair --root {shlex.quote(str(root))}", capsys)
        assert run(root) == "" and Store(root).verify().damage == ()


@pytest.mark.parametrize("n", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_no_random_damage_is_silent_or_final(
    n: int, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values are right or refused, and the first advice leads out."""
    dice = random.Random(7)
    for number in range(n):
        root = tmp_path / str(number) / begun.name
        shutil.copytree(begun, root)
        what = damage(sorted((root / entry_id(KEY)).iterdir()), dice)
        for _ in range(3):
            if not (problem := run(root)):
                break
            (words, *_) = COMMAND.findall(problem)
            command(words, capsys)
        assert run(root) == "", f"{number}: {what}"
        shutil.rmtree(root)
