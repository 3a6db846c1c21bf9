import errno
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from safetensors.torch import load_file
from test_store_crash import flipped, intercepted

from xlens import files
from xlens.files import owners
from xlens.store import (
    DamagedShardError,
    Entry,
    Store,
    StoreError,
    digest,
    entry_id,
    journal,
)
from xlens.store import store as store_module

KEY = {"model": "abc", "layers": [0, 1], "dtype": "float32"}


def tensors(shard: int) -> dict[str, torch.Tensor]:
    values = torch.arange(12.0).view(3, 4) + 100 * shard
    return {"last/0": values, "last/1": -values, "offsets": torch.arange(4)}


def rows(shard: int) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"{shard}/{i}" for i in range(3)], "tokens": [[shard, 1]] * 3})


def fill(entry: Entry) -> Entry:
    for shard in entry.todo():
        entry.write(shard, tensors(shard), rows(shard))
    entry.finish()
    return entry


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[n].dtype == expected[n].dtype and torch.equal(found[n], expected[n]) for n in expected
    )


def change(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "store")


@pytest.fixture
def whole(store: Store) -> Entry:
    return fill(store.entry(KEY, shards=3))


# --- keys ---


def test_a_key_gives_the_same_id_whatever_its_order_and_types() -> None:
    one = entry_id({"a": (1, 2.5), "b": {"x": None, "y": np.int64(3)}})
    assert one == entry_id({"b": {"y": 3, "x": None}, "a": [1, 2.5]})
    assert re.fullmatch("[0-9a-f]{32}", one)
    assert len({entry_id({"a": v}) for v in (1, 1.0, "1", True, None, [1], "é")}) == 7


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"dtype": torch.float32}, "key['dtype'] is torch.float32"),
        ({"a": {"b": [0, {1, 2}]}}, "key['a']['b'][1]"),
        ({"scale": float("nan")}, "key['scale'] is nan"),
        ({"a": {1: 2}}, "key['a'] has the name 1"),
    ],
)
def test_what_has_no_exact_json_form_is_refused_by_its_place(bad: Any, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        entry_id(bad)


def test_digest_tells_tensors_and_lists_apart() -> None:
    zeros = torch.zeros(2, 3)
    different = [
        zeros,
        zeros.T.contiguous(),
        zeros.half(),
        zeros.to(torch.bfloat16),
        zeros + 1,
        [[0.0] * 3] * 2,
        [0] * 6,
    ]
    assert len({digest(v) for v in different}) == len(different)
    assert digest(torch.arange(6).view(2, 3).T) == digest(torch.tensor([[0, 3], [1, 4], [2, 5]]))


# --- writing and reading ---


def test_what_is_written_is_read_again(store: Store, whole: Entry) -> None:
    again = store.entry(dict(reversed(KEY.items())), shards=3)
    assert again.id == whole.id and again.complete and again.done == {0, 1, 2}
    for shard in range(3):
        assert same(again.read(shard), tensors(shard))
        assert same(again.read(shard, ["last/1"]), {"last/1": tensors(shard)["last/1"]})
    pd.testing.assert_frame_equal(
        again.rows(), pd.concat([rows(n) for n in range(3)], ignore_index=True)
    )
    assert list(again.todo()) == []


DTYPES = [
    *("float64", "float32", "float16", "bfloat16"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
]


def test_any_dtype_and_shape_is_a_file_that_safetensors_reads(store: Store) -> None:
    entry = store.entry(KEY, shards=1)
    given = {f"{d}/é": torch.tensor([[0, 1, 5]]).to(getattr(torch, d)) for d in DTYPES}
    given |= {"scalar": torch.tensor(3), "none": torch.empty(0, 4), "t": torch.eye(3)[:, ::2]}
    entry.write(0, given)
    assert same(load_file(entry.path / "shard-00000.safetensors"), given)
    assert same(entry.read(0), given)
    entry.finish()
    assert entry.rows().empty


def test_the_order_of_tensors_does_not_change_the_bytes(tmp_path: Path) -> None:
    def written(name: str, given: dict[str, torch.Tensor]) -> bytes:
        entry = Store(tmp_path / name).entry(KEY, shards=1)
        entry.write(0, given)
        return (entry.path / "shard-00000.safetensors").read_bytes()

    assert written("a", tensors(0)) == written("b", dict(reversed(tensors(0).items())))


def test_what_is_read_can_be_changed_without_changing_the_file(whole: Entry) -> None:
    whole.read(0)["last/0"].zero_()
    assert same(whole.read(0, verify="size"), tensors(0))


def test_reading_a_slice_reads_nothing_else(whole: Entry) -> None:
    path = whole.path / "shard-00001.safetensors"
    change(path, lambda b: flipped(b, b.index(tensors(1)["last/1"].numpy().tobytes())))
    assert same(whole.read(1, ["last/0"]), {"last/0": tensors(1)["last/0"]})
    with pytest.raises(DamagedShardError, match="the bytes of tensor 'last/1' have changed"):
        whole.read(1)


def test_a_shard_that_is_done_stays_as_it_is(store: Store) -> None:
    entry = store.entry(KEY, shards=2)
    entry.write(0, tensors(0), rows(0))
    entry.write(0, tensors(1))
    assert same(entry.read(0), tensors(0))
    assert entry.done == {0} and not entry.complete


def test_an_entry_that_is_not_whole_says_so(store: Store) -> None:
    entry = store.entry(KEY, shards=12)
    entry.write(1, tensors(1), rows(1))
    with pytest.raises(ValueError, match=r"shards 0, 2, 3, 4, 5, 6, 7, 8 and 3 more of 12"):
        entry.finish()
    for ask in (lambda: entry.read(0), entry.rows):
        with pytest.raises(ValueError, match=r"Shard 0 .* has not been written yet; done are 1 of"):
            ask()


def test_bad_arguments_are_refused_by_name(store: Store, whole: Entry) -> None:
    with pytest.raises(ValueError, match="at least one shard, not 0"):
        store.entry(KEY, shards=0)
    with pytest.raises(ValueError, match="has 3 shards, not 4"):
        store.entry(KEY, shards=4)
    for call in (whole.claim, whole.read, lambda n: whole.write(n, tensors(0))):
        with pytest.raises(ValueError, match="has 3 shards, 0 to 2; not 3"):
            call(3)
    with pytest.raises(ValueError, match="no tensor 'first/0'; it has last/0, last/1, offsets"):
        whole.read(0, ["last/0", "first/0"])
    entry = store.entry({"other": 1}, shards=1)
    with pytest.raises(ValueError, match=r"'x' of shard 0 is torch\.complex64"):
        entry.write(0, {"x": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(ValueError, match="has no tensors"):
        entry.write(0, {})
    with pytest.raises(ValueError, match="'__metadata__'; choose another"):
        entry.write(0, {"__metadata__": torch.zeros(1)})
    with pytest.raises(ValueError, match="can't be written as Parquet"):
        entry.write(0, tensors(0), pd.DataFrame({"x": [1, "a", object()]}))
    (store.root / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        Store(store.root / "file")


def test_the_manifest_names_key_shards_and_versions_but_no_dates(whole: Entry) -> None:
    manifest = json.loads((whole.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["key"] == KEY and manifest["n_shards"] == 3 and manifest["id"] == whole.id
    assert manifest["versions"]["torch"] == [torch.__version__]
    for shard in manifest["shards"]:
        path = whole.path / f"shard-{shard['shard']:05d}.safetensors"
        assert shard["size"] == path.stat().st_size
    assert not re.search(r"date|20\d\d-", json.dumps(manifest))


def test_the_versions_of_every_run_that_had_a_part_are_kept(store: Store) -> None:
    store.entry(KEY, shards=3).write(0, tensors(0))
    with mock.patch("xlens.store.entry._versions", lambda: {"torch": ["99.0"]}):
        whole = fill(store.entry(KEY, shards=3))
    manifest = json.loads((whole.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["versions"]["torch"] == sorted([torch.__version__, "99.0"])


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "c"))
    assert Store().root == tmp_path / "c" / "store"
    assert Store().entries() == [] and Store().verify().ok
    assert not (tmp_path / "c").exists()
    monkeypatch.delenv("XLENS_CACHE")
    assert Store().root.parts[-2:] == ("xlens", "store")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_names_come_after_data_are_on_the_disk(store: Store) -> None:
    """What a power cut may not undo: fsync of a draft, rename, fsync of the folder, journal."""
    entry = store.entry(KEY, shards=1)
    order: list[tuple[str, str]] = []

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name not in ("write", "fsync", "replace"):
            return
        path = args[0] if name == "replace" else os.readlink(f"/proc/self/fd/{args[0]}")
        step = (
            name,
            "folder"
            if os.path.isdir(path)
            else Path(path).name.removeprefix(".xlens-").split(".")[1],
        )
        if not order or order[-1] != step:
            order.append(step)

    with intercepted(hook, sync=True):
        entry.write(0, tensors(0), rows(0))
    assert order == [
        ("write", "safetensors"),
        ("fsync", "safetensors"),
        ("write", "parquet"),
        ("fsync", "parquet"),
        ("replace", "safetensors"),
        ("replace", "parquet"),
        ("fsync", "folder"),
        ("write", "jsonl"),
        ("fsync", "jsonl"),
    ]


# --- damage ---

TENSORS, ROWS = "shard-00001.safetensors", "shard-00001.parquet"


@pytest.mark.parametrize(
    ("name", "how", "told"),
    [
        (TENSORS, lambda b: b[:-7], "truncated: .* bytes instead of"),
        (TENSORS, lambda b: b"", "truncated: 0 bytes instead of"),
        (TENSORS, lambda b: b + b"x", "too long"),
        (TENSORS, lambda b: flipped(b, -1), "the bytes of tensor 'offsets'|'last/1' have changed"),
        (TENSORS, lambda b: flipped(b, 60), "the bytes of its header have changed"),
        (TENSORS, lambda b: flipped(b, 6), "the bytes of its header have changed"),
        (ROWS, lambda b: b[:-7], "truncated: .* bytes instead of"),
        (ROWS, lambda b: flipped(b, 9), "its bytes have changed"),
        (TENSORS, None, "the file is missing"),
    ],
)
def test_a_damaged_shard_is_named_dropped_and_computed_again(
    store: Store, whole: Entry, name: str, how: Callable[[bytes], bytes] | None, told: str
) -> None:
    before = {p.name: p.read_bytes() for p in whole.path.iterdir() if p.suffix != ".jsonl"}
    path = whole.path / name
    if how is None:
        path.unlink()
    else:
        change(path, how)
    with pytest.raises(DamagedShardError) as raised:
        whole.read(1)
        whole.rows()
    message = str(raised.value)
    assert re.search(told, message) and f"Shard 1 of store entry {whole.id}" in message
    assert str(path) in message and "xlens store verify --repair" in message
    assert same(whole.read(0), tensors(0))

    report = store.verify(whole.id[:8])
    assert [(d.shard, d.repaired) for d in report.damage] == [(1, False)] and not report.ok
    report = store.verify(repair=True)
    assert [(d.shard, d.repaired) for d in report.damage] == [(1, True)] and report.ok
    assert store.verify().damage == ()

    again = store.entry(KEY, shards=3)
    assert again.done == {0, 2} and not again.complete
    fill(again)
    assert before == {p.name: p.read_bytes() for p in again.path.iterdir() if p.suffix != ".jsonl"}


def test_a_truncated_shard_is_computed_again_with_a_warning(
    store: Store, whole: Entry, caplog: pytest.LogCaptureFixture
) -> None:
    change(whole.path / TENSORS, lambda b: b[:-1])
    with caplog.at_level(logging.WARNING):
        again = store.entry(KEY, shards=3)
        assert again.done == {0, 2} and list(again.todo()) == [1]
    assert "Shard 1" in caplog.text and "truncated" in caplog.text
    # Should the values differ this time, they count, not those of the old manifest.
    again.write(1, tensors(7))
    again.finish()
    assert same(store.entry(KEY, shards=3).read(1), tensors(7)) and store.verify().ok


def test_a_quick_look_does_not_read_the_bytes(store: Store, whole: Entry) -> None:
    change(whole.path / TENSORS, lambda b: flipped(b, -1))
    quick, full = store.verify(full=False), store.verify()
    assert quick.ok and not full.ok and quick.shards == full.shards == 3
    written = [p for p in whole.path.iterdir() if p.suffix in (".safetensors", ".parquet")]
    assert quick.size == sum(p.stat().st_size for p in written)
    assert set(whole.read(1, verify="size")) == set(tensors(1))


@pytest.mark.parametrize("tail", [b'{"event":"shard","record":{"sha', b"\0" * 300, b"\xff{]\n7\n"])
def test_a_torn_last_line_of_the_journal_is_passed_over(store: Store, tail: bytes) -> None:
    entry = store.entry(KEY, shards=3)
    entry.write(0, tensors(0), rows(0))
    change(entry.path / "journal.jsonl", lambda b: b + tail)
    again = store.entry(KEY, shards=3)
    assert again.done == {0}
    assert same(fill(again).read(2), tensors(2))


@pytest.mark.parametrize("number", [3, 700])
def test_a_journal_with_a_shard_that_the_entry_does_not_have(store: Store, number: int) -> None:
    entry = store.entry(KEY, shards=3)
    entry.write(0, tensors(0), rows(0))
    record = vars(journal.read_journal(entry.path / "journal.jsonl").records[0])
    journal.write_event(entry.path / "journal.jsonl", "shard", record=record | {"shard": number})
    assert store.entry(KEY, shards=3).done == {0} and store.entries()[0].done == 1


def test_who_waits_for_shards_says_for_which(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    entry = store.entry(KEY, shards=3)
    parent = owners._owner(os.getppid())
    with mock.patch.object(owners, "_owner", lambda _: parent):
        assert entry.claim(0) and entry.claim(2)
        other = Store(store.root).entry(KEY, shards=3)
    entry._claims.waiting._since -= 2  # as if it had waited for longer
    late = threading.Timer(0.2, lambda: [other.write(n, tensors(n)) for n in (0, 2)])
    late.start()
    with mock.patch.object(entry._claims.waiting, "reset"):
        for shard in entry.todo(poll=0.02):
            entry.write(shard, tensors(shard))
    late.join()
    line = next(r.getMessage() for r in caplog.records if "Waiting" in r.getMessage())
    assert "shards 0, 2 of store entry" in line and f"process {os.getppid()}" in line


def test_a_journal_that_lost_its_beginning_is_mended_by_a_run(store: Store) -> None:
    entry = store.entry(KEY, shards=3)
    entry.write(0, tensors(0), rows(0))
    change(entry.path / "journal.jsonl", lambda b: b"?" + b[1:])
    (info,) = store.entries()
    assert info.key is None and "lost its first line" in str(info.problem)
    assert not store.verify(repair=True).ok
    assert store.entry(KEY, shards=3).done == {0}
    assert store.entries()[0].problem is None


def test_a_damaged_manifest_is_made_again_from_the_journal(store: Store, whole: Entry) -> None:
    manifest = whole.path / "manifest.json"
    good = manifest.read_bytes()
    change(manifest, lambda b: b[: len(b) // 2])
    with pytest.raises(StoreError, match=r"manifest\.json is damaged .*verify --repair"):
        store.entry(KEY, shards=3)
    assert "is damaged" in str(store.entries()[0].problem)
    assert not store.verify().ok and store.verify(repair=True).ok
    again = store.entry(KEY, shards=3)
    assert again.done == {0, 1, 2} and not again.complete
    again.finish()
    assert manifest.read_bytes() == good


def test_without_its_journal_a_whole_entry_is_read_and_mended(store: Store, whole: Entry) -> None:
    manifest = (whole.path / "manifest.json").read_bytes()
    (whole.path / "journal.jsonl").unlink()
    again = store.entry(KEY, shards=3)
    assert again.complete and same(again.read(1), tensors(1))
    again.drop([1])
    assert store.entry(KEY, shards=3).done == {0, 2}
    assert (fill(again).path / "manifest.json").read_bytes() == manifest


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("finished", [True, False])
def test_an_entry_of_another_format_is_refused(store: Store, finished: bool) -> None:
    entry = store.entry(KEY, shards=3)
    if finished:
        fill(entry)
        edited(entry.path / "manifest.json", '"format": 1', '"format": 7')
    else:
        edited(entry.path / "journal.jsonl", '"format":1', '"format":7')
    with pytest.raises(StoreError, match="format 7; this xlens reads 1"):
        store.entry(KEY, shards=3)
    assert "format 7" in str(store.entries()[0].problem)
    report = store.verify(repair=True)
    assert len(report.damage) == 1 and not report.ok
    assert store.prune(ids=[entry.id[:6]]).removed[0].id == entry.id
    assert store.entries() == []


@pytest.mark.parametrize("finished", [True, False])
def test_an_entry_of_another_model_under_this_id_is_refused(store: Store, finished: bool) -> None:
    other = store.entry({**KEY, "model": "xyz"}, shards=3)
    if finished:
        fill(other)
    shutil.move(other.path, store.root / entry_id(KEY))
    with pytest.raises(StoreError, match="does not belong to store entry"):
        store.entry(KEY, shards=3)
    with pytest.raises(StoreError, match="xlens store prune"):
        store.open(entry_id(KEY))


# --- a disk that doesn't do what it should ---


def failing(number: int, on: str, after: int = 0) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook: the disk refuses every `on` but for the first `after`."""
    seen = [0]

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == on:
            seen[0] += 1
            if seen[0] > after:
                raise OSError(number, os.strerror(number), str(args[0]))

    return hook


@pytest.mark.parametrize("after", range(8))
def test_no_room_is_told_and_loses_nothing(store: Store, after: int) -> None:
    entry = store.entry(KEY, shards=2)
    entry.write(0, tensors(0), rows(0))
    before = sorted(os.listdir(entry.path))
    with (
        intercepted(failing(errno.ENOSPC, "write", after)),
        pytest.raises(StoreError) as raised,
    ):
        assert entry.claim(1)
        entry.write(1, tensors(1), rows(1))
        entry.finish()
    entry.release(1)
    message = str(raised.value)
    assert raised.value.errno == errno.ENOSPC and "MB free" in message
    assert str(store.root) in message and "xlens store prune" in message
    if after < 6:  # before the journal's line
        assert {*os.listdir(entry.path)} - {*before} <= {TENSORS, ROWS}
        assert store.entry(KEY, shards=2).done == {0}
    assert not list(entry.path.glob("*.tmp"))
    assert same(entry.read(0), tensors(0))
    assert fill(store.entry(KEY, shards=2)).complete
    assert store.verify().damage == ()


def test_a_short_write_is_continued(store: Store) -> None:
    real = os.write
    with mock.patch.object(os, "write", lambda fd, data: real(fd, bytes(data)[:100])):
        entry = fill(store.entry(KEY, shards=1))
    assert same(entry.read(0), tensors(0)) and store.verify().ok


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_store_that_cannot_be_written_to_is_told_before_anything_is_computed(
    tmp_path: Path, number: int
) -> None:
    store = Store(tmp_path / "store")
    for on in ("mkdir", "open"):
        with (
            intercepted(failing(number, on)),
            pytest.raises(StoreError, match=r"cannot be written to .*XLENS_CACHE") as raised,
        ):
            store.entry(KEY, shards=1)
        assert str(store.root) in str(raised.value)


def test_a_whole_entry_is_read_from_a_read_only_store(store: Store, whole: Entry) -> None:
    def refuse(name: str, args: tuple[Any, ...]) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(args[0]))

    with intercepted(refuse):
        entry = Store(store.root).entry(KEY, shards=3)
        assert same(entry.read(2), tensors(2)) and len(entry.rows()) == 9
        assert store.verify().ok and len(store.entries()) == 1
        with pytest.raises(StoreError, match="cannot be written to"):
            store.prune(keep_bytes=0)


def test_a_failed_read_is_told(whole: Entry) -> None:
    with (
        mock.patch.object(Path, "read_bytes", side_effect=OSError(errno.EIO, "I/O error")),
        pytest.raises(StoreError, match=r"Reading entry .* failed .*I/O error"),
    ):
        whole.rows()


# --- several writers ---


def as_process(number: int, **changes: Any) -> Any:
    """Inside, this process is another one, which ps doesn't know."""
    here = owners.me()
    fields = {"pid": 10**7 + number, "started": 1, "host": here.host, "boot": here.boot} | changes
    return mock.patch.object(owners, "_owner", lambda _: owners.Owner(**fields))


def test_a_claim_divides_the_work(store: Store) -> None:
    entry = store.entry(KEY, shards=2)
    assert entry.claim(0) and entry.claim(0)
    # The parent of this process runs, and is another one.
    parent = owners._owner(os.getppid())
    with mock.patch.object(owners, "_owner", lambda _: parent):
        other = Store(store.root).entry(KEY, shards=2)
        assert not other.claim(0) and other.claim(1)
        other.release(0)  # not its own
    assert not entry.claim(1)
    entry.write(0, tensors(0))
    assert not entry.claim(0)
    assert store.entries()[0].in_use
    later = fill(store.entry({"another": "entry"}, shards=2))
    pruned = store.prune(keep_bytes=0)  # what is in use is passed over, and the next looked at
    found = [[info.id for info in infos] for infos in (pruned.in_use, pruned.removed)]
    assert found == [[entry.id], [later.id]]


@pytest.mark.parametrize(
    ("owner", "idle", "free"),
    [
        ({}, 0, True),  # no such process any more
        ({"pid": os.getpid(), "started": 5}, 0, True),  # the number was given out again
        (vars(owners._owner(os.getppid())) | {"boot": "beef"}, 0, True),  # before a restart
        (vars(owners._owner(os.getppid())), 3600, False),  # slow but alive
        ({"host": "cafe"}, 0, False),  # on another machine: only time tells
        ({"host": "cafe"}, 3600, False),  # and a file's date doesn't
    ],
)
def test_the_claims_and_drafts_of_dead_writers_are_recognised(
    store: Store, owner: dict[str, Any], idle: float, free: bool
) -> None:
    entry = store.entry(KEY, shards=1)
    with as_process(0, **owner):
        assert entry.claim(0)
        draft = files.draft(entry.path / TENSORS, [b"half"])
    for path in (draft, entry.path / "shard-00000.claim"):
        when = path.stat().st_mtime - idle
        os.utime(path, (when, when))
    again = Store(store.root).entry(KEY, shards=1)
    assert draft.exists() != free
    assert again.claim(0) == free
    again.write(0, tensors(0))
    again.finish()
    assert not draft.exists(), "nobody needs it any more"


def test_a_zombie_and_a_claim_cut_off_are_dead(store: Store) -> None:
    entry = store.entry(KEY, shards=1)
    parent = owners._owner(os.getppid())
    with mock.patch.object(owners, "_owner", lambda _: parent):
        assert entry.claim(0)
    assert not entry.claim(0)
    with mock.patch("psutil.Process.status", return_value="zombie"):
        assert files.Watch().holder(entry.path / "shard-00000.claim") is None
    change(entry.path / "shard-00000.claim", lambda b: b[: len(b) // 2])
    assert entry.claim(0)


def test_a_loop_left_by_an_error_gives_its_claims_back(store: Store) -> None:
    entry = store.entry(KEY, shards=3)

    def loop() -> None:
        for shard in entry.todo():
            if shard == 1:
                raise KeyboardInterrupt
            entry.write(shard, tensors(shard))

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert not list(entry.path.glob("*.claim")) and entry.done == {0}


def test_who_is_alone_waits_for_nobody(store: Store) -> None:
    entry = store.entry(KEY, shards=3)
    with mock.patch.object(entry._claims, "tell_wait", side_effect=AssertionError("it waited")):
        for shard in entry.todo():
            entry.write(shard, tensors(shard))


def test_the_loop_waits_for_the_shards_of_another_process(store: Store) -> None:
    entry = store.entry(KEY, shards=2)
    parent = owners._owner(os.getppid())
    with mock.patch.object(owners, "_owner", lambda _: parent):
        assert entry.claim(0)
        other = Store(store.root).entry(KEY, shards=2)
    late = threading.Timer(0.2, lambda: other.write(0, tensors(0)))
    late.start()
    for shard in entry.todo(poll=0.02):
        assert shard == 1
        entry.write(shard, tensors(shard))
    late.join()
    entry.finish()
    assert not list(entry.path.glob("*.claim"))


def test_threads_may_write_the_same_entry(store: Store) -> None:
    entry = store.entry(KEY, shards=8)
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for shard in range(8):
                entry.write(shard, tensors(shard), rows(shard))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry.finish()
    assert faults == [] and store.verify().ok and len(entry.rows()) == 24


def test_a_lock_that_is_never_released_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.05)
    entry = store.entry(KEY, shards=1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Store(store.root)._lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with pytest.raises(StoreError, match=r"Another process has kept the store .* locked"):
        Store(store.root).entry(KEY, shards=1).claim(0)
    done.set()
    holder.join()
    assert entry.claim(0)


def test_an_entry_pruned_while_it_is_written_is_begun_again(store: Store) -> None:
    entry = store.entry(KEY, shards=2)
    entry.write(0, tensors(0), rows(0))
    Store(store.root).prune(keep_bytes=0)
    entry.write(1, tensors(1), rows(1))
    assert entry.done == {1} and store.entries()[0].key == KEY
    assert same(fill(entry).read(0), tensors(0))


# --- ls and prune ---


def test_the_list_tells_what_is_there(store: Store, whole: Entry) -> None:
    store.entry({"other": "é"}, shards=4).write(2, tensors(2))
    infos = {info.id: info for info in store.entries()}
    info = infos.pop(whole.id)
    assert (info.key, info.shards, info.done, info.complete) == (KEY, 3, 3, True)
    assert info.created is not None and info.created <= info.used and info.problem is None
    assert info.size == sum(p.stat().st_size for p in whole.path.iterdir())
    (info,) = infos.values()
    assert (info.key, info.shards, info.done, info.complete) == ({"other": "é"}, 4, 1, False)
    assert not info.in_use
    assert store.open(whole.id[:5]).done == {0, 1, 2}
    for wrong in ("", "zz"):
        with pytest.raises(ValueError, match="begin with"):
            store.open(wrong)


def aged(entry: Entry, days: float) -> Entry:
    for path in entry.path.iterdir():
        when = path.stat().st_mtime - days * 86_400
        os.utime(path, (when, when))
    return entry


def test_prune_deletes_what_meets_every_condition(store: Store) -> None:
    old, new = (fill(store.entry({"n": n}, shards=2)) for n in range(2))
    half = aged(store.entry({"n": 2}, shards=9), 40)
    aged(old, 50)

    def chosen(**conditions: Any) -> set[str]:
        return {info.id for info in store.prune(dry_run=True, **conditions).removed}

    month = timedelta(days=30)
    assert chosen(older_than=month) == {old.id, half.id}
    assert chosen(incomplete=True) == {half.id}
    assert chosen(older_than=month, larger_than=3_000) == {old.id}
    assert chosen(ids=[new.id, half.id[:7]], older_than=month) == {half.id}
    sizes = {info.id: info.size for info in store.entries()}
    assert chosen(keep_bytes=sum(sizes.values())) == set()
    assert chosen(keep_bytes=sum(sizes.values()) - 1) == {old.id}  # the longest unused
    assert chosen(keep_bytes=0) == {old.id, new.id, half.id}
    with pytest.raises(ValueError, match="needs at least one of"):
        store.prune(dry_run=True)
    assert len(store.entries()) == 3

    store.entry({"n": 0}, shards=2)  # asking for it is using it
    assert chosen(older_than=month) == {half.id}
    report = store.prune(older_than=month)
    assert report.size == sizes[half.id] and {i.id for i in store.entries()} == {old.id, new.id}


def test_what_a_killed_prune_left_is_cleaned_up(store: Store, whole: Entry) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with as_process(1), mock.patch.object(shutil, "rmtree", die), pytest.raises(Killed):
        store.prune(keep_bytes=0)
    assert store.entries() == [] and len(list(store.root.glob("*pruned-*"))) == 1
    store.prune(keep_bytes=0)
    assert not list(store.root.glob("*pruned-*"))


# --- anything in any order, against a dict ---


class Killed(BaseException):
    """From here on, nothing reaches the disk."""


class StoreMachine(RuleBasedStateMachine):
    """Put, finish, claim, corrupt, verify, prune; with a kill at any change of the disk.

    The model of an entry: its shards with their damage ("" for none), whether its manifest is
    there, and the claims of the living process.
    """

    SHARDS = 2
    entry_names = st.sampled_from(["a", "b"])
    shard_numbers = st.integers(0, SHARDS - 1)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ["XLENS_TEST_HOME"]) / f"machine-{os.getpid()}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.processes = 0
        self.shards: dict[str, dict[int, str]] = {}
        self.finished: dict[str, bool] = {}
        self.claims: dict[str, set[int]] = {}
        self.patch = as_process(0)
        self.patch.start()
        self.begin()

    def teardown(self) -> None:
        self.patch.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        """A new process: what only the old one knew is gone."""
        self.patch.stop()
        self.processes += 1
        self.patch = as_process(self.processes)
        self.patch.start()
        self.store = Store(self.folder)
        self.entries: dict[str, Entry] = {}
        self.claims = {name: set() for name in self.shards}

    def key(self, name: str) -> dict[str, str]:
        return {"name": name}

    def entry(self, name: str) -> Entry:
        if name not in self.shards:
            self.entries.pop(name, None)
            self.shards[name], self.finished[name], self.claims[name] = {}, False, set()
        if name not in self.entries:
            self.entries[name] = self.store.entry(self.key(name), shards=self.SHARDS)
            drafts = list(self.entries[name].path.glob("*.tmp"))
            assert not drafts or self.finished[name], "drafts of dead writers stay"
        return self.entries[name]

    def whole_length(self, name: str) -> set[int]:
        """Shards that count as done: a flipped bit doesn't show in a file's length."""
        return {n for n, damage in self.shards[name].items() if damage in ("", "flip")}

    # --- the operations, and their effect on the model ---

    def put(self, name: str, shard: int) -> None:
        self.entry(name).write(shard, tensors(shard + ord(name)), rows(shard))
        if shard not in self.whole_length(name):
            self.shards[name][shard] = ""
            self.finished[name] = False
        self.claims[name].discard(shard)

    def finish(self, name: str, shard: int) -> None:
        if len(self.whole_length(name) if name in self.shards else ()) < self.SHARDS:
            with pytest.raises(ValueError, match="have not been written"):
                self.entry(name).finish()
        else:
            self.entry(name).finish()
            self.finished[name] = True
            self.claims[name] = set()

    def claim(self, name: str, shard: int) -> None:
        got = self.entry(name).claim(shard)
        assert got == (shard not in self.whole_length(name))
        if got:
            self.claims[name].add(shard)

    def repair(self, name: str, shard: int) -> None:
        report = self.store.verify(repair=True)
        assert report.ok
        self.compare(report, ["flip", "truncate", "delete"])
        for known, shards in self.shards.items():
            if any(shards.values()):
                self.finished[known] = False
            self.shards[known] = {n: damage for n, damage in shards.items() if not damage}

    def prune(self, name: str, shard: int) -> None:
        report = self.store.prune(keep_bytes=0) if shard else self.store.prune(incomplete=True)
        chosen = {n for n in self.shards if shard or not self.finished[n]}
        spared = {n for n in chosen if self.claims[n]}
        assert {i.key["name"] for i in report.removed if i.key} == chosen - spared
        assert {i.key["name"] for i in report.in_use if i.key} == spared
        for gone in chosen - spared:
            del self.shards[gone], self.finished[gone], self.claims[gone]

    def compare(self, report: Any, kinds: list[str]) -> None:
        names = {entry_id(self.key(name)): name for name in self.shards}
        assert {(names[d.entry], d.shard) for d in report.damage} == {
            (name, n)
            for name, shards in self.shards.items()
            for n, d in shards.items()
            if d in kinds
        }

    # --- the rules ---

    @rule(
        what=st.sampled_from(["put", "put", "put", "finish", "claim", "repair", "prune"]),
        name=entry_names,
        shard=shard_numbers,
    )
    def do(self, what: str, name: str, shard: int) -> None:
        getattr(self, what)(name, shard)

    @rule(
        what=st.sampled_from(["put", "put", "put", "finish", "claim", "repair", "prune"]),
        name=entry_names,
        shard=shard_numbers,
        point=st.integers(0, 40),
    )
    def die(self, what: str, name: str, shard: int, point: int) -> None:
        """An operation with a kill on the way, if it gets that far."""
        self.entry(name)
        before = {n: dict(shards) for n, shards in self.shards.items()}
        finished = dict(self.finished)
        steps = [0]

        def hook(call: str, args: tuple[Any, ...]) -> None:
            steps[0] += 1
            if steps[0] > point:
                raise Killed

        try:
            with intercepted(hook):
                getattr(self, what)(name, shard)
        except Killed:
            self.begin()
            self.shards = {n: self.found(n, before[n], what, shard) for n in before}
            self.finished = {
                n: (self.folder / entry_id(self.key(n)) / "manifest.json").exists() for n in before
            }
            for n in before:
                gone = not (self.folder / entry_id(self.key(n))).exists()
                assert not gone or what == "prune"
                if gone:
                    del self.shards[n], self.finished[n]
                else:
                    assert self.finished[n] == finished[n] or what in ("finish", "repair", "put")
            self.claims = {n: set() for n in self.shards}

    def found(self, name: str, before: dict[int, str], what: str, shard: int) -> dict[int, str]:
        """What a killed operation left, if it is lawful."""
        path = self.folder / entry_id(self.key(name))
        if not path.exists():
            return {}
        entry = self.store.open(path.name)
        damaged = {d.shard for d in self.store.verify(path.name).damage}
        left = {n: before.get(n, "") * (n in damaged) for n in entry._records.contents().records}
        assert {n for n, d in before.items() if not d} <= left.keys(), "a whole shard is lost"
        new = left.keys() - before.keys()
        assert new <= ({shard} if what == "put" else set())
        if what != "repair":
            assert before.keys() <= left.keys()
        # Dropped in the journal, or damaged still; put again, or damaged still.
        for n in left.keys() & before.keys():
            if before[n] and not left[n]:
                assert what == "put" and n == shard
        return left

    @rule()
    def restart(self) -> None:
        self.begin()

    @precondition(lambda self: any(self.shards.values()))
    @rule(data=st.data(), how=st.sampled_from(["flip", "truncate", "delete"]))
    def corrupt(self, data: st.DataObject, how: str) -> None:
        there = [(name, n) for name, shards in self.shards.items() for n in shards]
        name, shard = data.draw(st.sampled_from(sorted(there)))
        if self.shards[name][shard]:
            return
        path = self.folder / entry_id(self.key(name)) / f"shard-{shard:05d}.safetensors"
        if how == "delete":
            path.unlink()
        else:
            change(path, lambda b: flipped(b, -1) if how == "flip" else b[:-3])
        self.shards[name][shard] = how
        self.entries.pop(name, None)  # what it read before it need not read again

    @rule(full=st.booleans())
    def verify(self, full: bool) -> None:
        report = self.store.verify(full=full)
        self.compare(report, ["truncate", "delete"] + ["flip"] * full)

    @invariant()
    def disk_and_model_agree(self) -> None:
        infos = {info.key["name"]: info for info in self.store.entries() if info.key}
        assert set(infos) == set(self.shards)
        for name, info in infos.items():
            assert info.complete == self.finished[name] and info.problem is None
            assert info.in_use == bool(self.claims[name])
            entry = self.store.open(info.id)
            assert entry.done == self.whole_length(name)
            for shard, damage in self.shards[name].items():
                if damage:
                    with pytest.raises(DamagedShardError):
                        entry.read(shard)
                else:
                    assert same(entry.read(shard), tensors(shard + ord(name)))


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
