"""The list of a store: what it tells, and that what it remembers is never old."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import kit
import pytest
from test_shared import parallel
from test_store import KEY, fill, tensors

from xlens.cli import main
from xlens.cli.store import _age
from xlens.engine import harvest_to_store
from xlens.files import Lease
from xlens.store import Entry, Store, seen


def settled(entry: Entry) -> Entry:
    """As if nothing had changed for an hour."""
    for path in [*entry.path.iterdir(), entry.path]:
        os.utime(path, (time.time() - 3600,) * 2)
    return entry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_remembered_is_not_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        settled(fill(store.entry({**KEY, "n": n}, shards=1)))
    before = store.entries()
    looked: list[Path] = []
    look = seen.look
    monkeypatch.setattr(seen, "look", lambda path: looked.append(path) or look(path))
    assert store.entries() == before and looked == []
    (store.root / ".index.json").write_text("{")
    assert store.entries() == before and len(looked) == 3


def test_a_change_is_seen(store: Store) -> None:
    entry = settled(store.entry(KEY, shards=2))
    assert store.entries()[0].done == 0
    entry.write(0, tensors(0))
    assert store.entries()[0].done == 1 and not store.entries()[0].in_use
    settled(entry)
    assert not store.entries()[0].in_use
    Lease.take(entry.path / "shard-00001.claim")
    assert store.entries()[0].in_use
    entry.write(1, tensors(1))
    entry.finish()
    assert store.entries()[0].complete and not store.entries()[0].in_use
    settled(entry)
    assert store.entries()[0].problem is None
    (entry.path / "manifest.json").write_text("{")
    assert "is damaged" in str(store.entries()[0].problem)
    store.prune(keep_bytes=0)
    assert store.entries() == []


def test_what_is_new_is_not_remembered(store: Store) -> None:
    fill(store.entry(KEY, shards=1))
    store.entries()
    assert seen.remembered(store.root) == ({}, 0)


def test_what_is_finished_is_never_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        fill(store.entry({**KEY, "n": n}, shards=1, about={"model": "tiny"}))
    known, _ = seen.remembered(store.root)
    wanted = {path.name: list(seen.look(path)) for path in store._folders()}
    assert {name: json.loads(json.dumps(told)) for name, (_, *told) in known.items()} == json.loads(
        json.dumps(wanted)
    )
    look = seen.look
    monkeypatch.setattr(seen, "look", lambda path: pytest.fail(f"{path} is looked at"))
    assert len(store.entries()) == 3
    monkeypatch.setattr(seen, "look", look)
    again = store.entry({**KEY, "n": 0}, shards=1)  # its last use is another
    monkeypatch.setattr(seen, "look", lambda path: pytest.fail(f"{path} is looked at"))
    assert seen.remembered(store.root)[0].keys() == {again.id}
    monkeypatch.setattr(seen, "look", look)
    again.drop([0])
    assert seen.remembered(store.root)[0] == {again.id: [None]}
    assert {info.done for info in store.entries()} == {0, 1}


def test_a_damaged_index_is_no_index(store: Store) -> None:
    entries = [fill(store.entry({**KEY, "n": n}, shards=1)) for n in range(2)]
    before, new = store.entries(), store.root / ".index.new"
    for entry in entries:
        seen.remember(entry.path)
    size = str(before[0].size).encode()
    lines = new.read_bytes()
    for entry in entries:
        settled(entry)
    before = store.entries()
    index = (store.root / ".index.json").read_bytes()
    for path, text in ((new, lines), (store.root / ".index.json", index)):
        assert size in text
        for changed in (text.replace(size, size[::-1]), text[:-3], b"\xff\n", b"[]", b""):
            path.write_bytes(changed)
            assert store.entries() == before


def test_ls_shows_model_prompts_verb_and_age(
    family_dir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = kit.model(family_dir("gemma3"))
    prompts = parallel()
    harvest_to_store(model, prompts, tmp_path / "store", layers=[1, 2], progress=False)
    with pytest.raises(SystemExit) as ended:
        main(["store", "ls", "--root", str(tmp_path / "store")])
    assert not ended.value.code
    head, line = capsys.readouterr().out.splitlines()[:2]
    assert head.split() == ["entry", "size", "used", "verb", "model", "prompts", "layers", "state"]
    tags = ", ".join(sorted({p.language for p in prompts}))
    asked = f"{len(prompts)} prompts ({tags})"
    for shown in ("harvest", model.name, asked, "2 layers", "0 min", "whole"):
        assert shown in line, line


@pytest.mark.parametrize(
    ("since", "shown"),
    [
        (timedelta(minutes=5), "5 min"),
        (timedelta(hours=30), "30 h"),
        (timedelta(days=9), "9 d"),
        (timedelta(seconds=-3), "0 min"),
    ],
)
def test_an_age_has_one_unit(since: timedelta, shown: str) -> None:
    assert _age(round(since.total_seconds() * 1e9)) == shown


def test_many_entries_are_plain_lines(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(2):
        fill(store.entry({**KEY, "n": n}, shards=1))
    monkeypatch.setattr("xlens.cli.store._MANY", 1)
    with pytest.raises(SystemExit):
        main(["store", "ls", "--root", str(store.root)])
    lines = capsys.readouterr().out.splitlines()
    assert [len(line.split("\t")) for line in lines] == [8, 8, 1] and "2 entries in" in lines[-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["store", "ls", "--root", "nowhere"], "No folder 'nowhere'"),
        (["store", "prune", "--keep", "1G", "--root", "nowhere"], "No folder 'nowhere'"),
        (["report", "nowhere", "--static", "gif"], "static=['gif']: give a list of formats"),
    ],
)
def test_what_is_not_there_is_refused(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 2 and said in capsys.readouterr().err
