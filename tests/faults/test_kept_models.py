"""Converted models, those of the package and GGUF files on disks that change them."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import tiny_gguf
from damage import damage

from xlens.cli import main
from xlens.files import DamagedError
from xlens.models import checked, converted
from xlens.models.shipped import find_shipped
from xlens.models.sources import resolve

few_or_many = pytest.mark.parametrize("times", [40, pytest.param(300, marks=pytest.mark.slow)])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gguf(tmp_path, cache):
    return tiny_gguf.make(tmp_path / "my model.gguf")


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@few_or_many
def test_no_damaged_conversion_is_loaded(times, gguf, tmp_path, caplog):
    source = resolve(gguf, progress=False)
    folder = Path(source.location)
    assert source.digest
    whole, dice = tmp_path / "whole", random.Random(3)
    shutil.copytree(folder, whole)
    manifest = json.loads((whole / converted.MANIFEST).read_text())
    tried = named = 0
    while tried < times:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        paths = sorted(folder.iterdir())
        # Half of them in the weights, a bit each.
        if tried % 2:
            path = folder / "model.safetensors"
            flip(path, dice.randrange(path.stat().st_size))
            what = path, "flip"
        elif (what := damage(paths, dice)) is None:
            continue
        tried += 1
        caplog.clear()
        found = converted.find_converted("my-model", source.digest)
        if found is None:
            named += str(folder) in caplog.text and "made again" in caplog.text
        else:  # what nobody reads: the versions in the manifest, say
            assert what[0].name == converted.MANIFEST, what
            files = json.loads((folder / converted.MANIFEST).read_text())["files"]
            assert files == manifest["files"], what
            named += 1
    assert named == tried


def test_a_flipped_bit_is_told_and_made_again(gguf, caplog):
    source = resolve(gguf, progress=False)
    weights = Path(source.location, "model.safetensors")
    before = weights.read_bytes()
    flip(weights, len(before) // 2)
    assert resolve(gguf, progress=False) == source
    assert weights.read_bytes() == before
    assert f"{weights}" in caplog.text and "SHA-256" in caplog.text


def test_what_is_untouched_is_sampled(gguf, monkeypatch):
    """Read whole once; afterwards only blocks, until a time changes."""
    source = resolve(gguf, progress=False)
    reads: list[str] = []
    real = checked.files.check_file
    monkeypatch.setattr(
        checked.files,
        "check_file",
        lambda path, *rest: (reads.append(path.name), real(path, *rest)),
    )
    resolve(gguf, progress=False)
    assert "model.safetensors" in reads  # the first load after the conversion
    reads.clear()
    resolve(gguf, progress=False)
    assert reads == []
    weights = Path(source.location, "model.safetensors")
    os.utime(weights)
    resolve(gguf, progress=False)
    assert "model.safetensors" in reads


def test_setting_the_time_back_hides_nothing(gguf, caplog):
    source = resolve(gguf, progress=False)
    resolve(gguf, progress=False)
    weights = Path(source.location, "model.safetensors")
    stat = weights.stat()
    flip(weights, stat.st_size - 9)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert converted.find_converted("my-model", source.digest or "") is None
    assert "model.safetensors" in caplog.text


def test_blocks_are_sampled_where_times_say_nothing(gguf, monkeypatch):
    """A disk that rots changes no time: of a small file every block is compared."""
    source = resolve(gguf, progress=False)
    resolve(gguf, progress=False)
    weights = Path(source.location, "model.safetensors")
    stamp = weights.parent.with_name(f".{weights.parent.name}.checked")
    looks = json.loads(stamp.read_text())["looks"]
    flip(weights, 5)
    stat = weights.stat()
    looks["model.safetensors"][1:3] = [stat.st_mtime_ns, stat.st_ctime_ns]
    stamp.write_text(checked.files.sealed_json({"looks": looks}))
    assert converted.find_converted("my-model", source.digest or "") is None


def test_models_verify_reads_all(gguf, cache, capsys):
    source = resolve(gguf, progress=False)
    weights = Path(source.location, "model.safetensors")
    assert checked.check_all() == {weights.parent.name: ""}
    flip(weights, 100)
    with pytest.raises(SystemExit) as done:
        main(["models", "--verify"])
    assert done.value.code == 2
    out, err = capsys.readouterr()
    assert f"{str(weights)!r} is damaged" in out and "converted anew" in out
    assert "atlas final: whole" in out and weights.parent.name in err
    resolve(gguf, progress=False)  # what it advises
    assert checked.check_all() == {weights.parent.name: ""}


def test_a_gguf_file_that_changed_by_itself_is_refused(gguf, caplog):
    resolve(gguf, progress=False)
    stat = gguf.stat()
    flip(gguf, stat.st_size - 5)
    os.utime(gguf, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DamagedError, match=r"my model\.gguf.*time is the same.*Copy or"):
        resolve(gguf, progress=False)
    flip(gguf, stat.st_size - 5)
    os.utime(gguf, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    resolve(gguf, progress=False)
    assert caplog.text == ""


def test_a_gguf_file_that_was_replaced_is_told_of(gguf, caplog):
    first = resolve(gguf, progress=False)
    flip(gguf, gguf.stat().st_size - 5)
    second = resolve(gguf, progress=False)
    assert first.digest != second.digest
    assert "another model now" in caplog.text and str(gguf) in caplog.text
    caplog.clear()
    resolve(gguf, progress=False)
    assert "another model" not in caplog.text


@few_or_many
def test_no_damaged_atlas_is_loaded(times, tmp_path):
    atlas = find_shipped("atlas")
    assert atlas
    root, dice, tried = tmp_path / "data", random.Random(4), 0
    root.mkdir()
    shutil.copy(atlas.folder.parent / "index.json", root)
    while tried < times:
        shutil.rmtree(root / "final", ignore_errors=True)
        shutil.copytree(atlas.folder, root / "final")
        if (what := damage(sorted((root / "final").iterdir()), dice)) is None:
            continue
        tried += 1
        with pytest.raises(DamagedError, match=r"Install xlens again") as told:
            checked.check_shipped(root, "final")
        assert str(what[0]) in str(told.value)
    shutil.rmtree(root / "final")
    shutil.copytree(atlas.folder, root / "final")
    checked.check_shipped(root, "final")
    text = (root / "index.json").read_text()
    (root / "index.json").write_text(text.replace("7239384", "7239385"))
    with pytest.raises(DamagedError, match=r"index\.json"):
        checked.check_shipped(root, "final")
