"""A disk that refuses, at every open, write, rename and sync: told, and mended by the next run."""

import errno
from itertools import count
from pathlib import Path

import pytest
from test_store import KEY, failing, fill, same, tensors
from test_store_crash import intercepted

from xlens.store import Store, StoreError


@pytest.mark.parametrize("on", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT])
def test_every_error_of_the_disk_is_told_and_the_next_run_is_right(
    tmp_path: Path, number: int, on: str
) -> None:
    for after in count():
        store = Store(tmp_path / str(after))
        try:
            with intercepted(failing(number, on, after), sync=True):
                fill(store.entry(KEY, shards=2))
        except StoreError as error:
            assert error.errno == number and str(store.root) in str(error)
            assert not list(store.root.rglob("*.tmp"))
        else:
            break
        entry = fill(Store(store.root).entry(KEY, shards=2))
        assert all(same(entry.read(n), tensors(n)) for n in range(2)) and store.verify().ok
    assert after > 4
