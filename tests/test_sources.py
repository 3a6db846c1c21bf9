"""From what a user writes to a loaded model: folders, packages, the hub; and what is refused."""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
import tiny_gguf
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

import tiny
import xlens
from xlens.models import hub, wheels
from xlens.models.sources import KnownModel, Source, known_models, load_hf, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkpoint(tiny_gpt2_dir, tmp_path):
    """A tiny GPT-2 that a test may spoil."""
    return Path(shutil.copytree(tiny_gpt2_dir, tmp_path / "my-gpt2"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same_logits(model, reference):
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        return torch.equal(model(ids).logits, reference(ids).logits)


# --- folders ---


@pytest.mark.parametrize("spelling", [str, Path, lambda p: os.path.relpath(p)])
def test_a_folder(spelling, checkpoint):
    source = resolve(spelling(checkpoint))
    assert source == Source("directory", str(checkpoint), "my-gpt2", "float32 safetensors")
    model, tokenizer = load_hf(source)
    assert same_logits(model, tiny.model("gpt2"))
    assert not model.training
    text = tiny.TEXT["zh-Hans"]
    assert tokenizer(text)["input_ids"] == tiny.tokenizer("gpt2")(text)["input_ids"]


def test_a_home_folder(checkpoint, monkeypatch):
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert resolve("~/my-gpt2").location == str(checkpoint)


def test_a_folder_in_the_working_directory_goes_before_the_hub(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    assert resolve("my-gpt2").kind == "directory"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype(dtype, checkpoint):
    model, _ = load_hf(resolve(checkpoint), dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_half_precision_weights_are_noted_and_widened(checkpoint):
    tiny.model("gpt2").bfloat16().save_pretrained(checkpoint)
    source = resolve(checkpoint)
    assert source.weights_note == "bfloat16 safetensors"
    model, _ = load_hf(source)
    assert model.dtype == torch.float32


def test_weights_lie_in_aligned_memory(checkpoint):
    model, _ = load_hf(resolve(checkpoint))
    assert {p.data_ptr() % 64 for p in model.parameters()} == {0}
    assert model.lm_head.weight is model.transformer.wte.weight


def test_loading_is_silent(checkpoint, capfd):
    load_hf(resolve(checkpoint))
    assert capfd.readouterr() == ("", "")


def test_a_snapshot_of_the_hubs_cache_keeps_its_name(tiny_gpt2_dir, tmp_path):
    folder = tmp_path / "models--org--mini-gpt" / "snapshots" / COMMIT
    shutil.copytree(tiny_gpt2_dir, folder)
    assert resolve(folder).name == "mini-gpt"


# --- folders that are refused ---


def test_a_folder_without_a_checkpoint_lists_what_it_holds(tmp_path):
    for i in range(10):
        (tmp_path / f"note{i}.txt").write_text("")
    with pytest.raises(ValueError, match=r"found: note0\.txt.* and 2 more.*config\.json"):
        resolve(tmp_path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="found: nothing"):
        resolve(tmp_path)


def test_a_folder_of_gguf_files_points_to_one(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"give its own path: .*m\.gguf"):
        resolve(tmp_path)


def test_an_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"xlens\.load\(its base model, adapter=this folder\)"):
        resolve(tmp_path)


def test_a_config_without_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no weights.*incomplete"):
        resolve(checkpoint)


def test_truncated_weights(checkpoint):
    os.truncate(checkpoint / "model.safetensors", 5000)
    with pytest.raises(ValueError, match=r"model\.safetensors.*cut short or damaged"):
        resolve(checkpoint)


def test_weights_of_part_of_the_model(checkpoint):
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks transformer\.h\.1\.mlp\.c_fc\.weight.*random"):
        load_hf(resolve(checkpoint))


def test_weights_of_another_shape(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"n_embd": 24}))
    with pytest.raises(ValueError, match=r"has weights of other shapes"):
        load_hf(resolve(checkpoint))


def test_an_encoder(tmp_path):
    config = AutoConfig.for_model(
        "vit", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tiny.byte_level().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'vit'.*writes no text on"):
        load_hf(resolve(tmp_path))


def test_no_tokenizer(checkpoint):
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no tokenizer.*save_pretrained"):
        load_hf(resolve(checkpoint))


def test_garbled_config(checkpoint):
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot load"):
        load_hf(resolve(checkpoint))


def test_code_runs_only_when_it_is_trusted(checkpoint, tmp_path):
    ran = tmp_path / "it-ran"
    (checkpoint / "own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        f"Path({str(ran)!r}).touch()\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own'\n"
        "class OwnModel(GPT2LMHeadModel):\n    config_class = OwnConfig\n"
    )
    config = json.loads((checkpoint / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config |= {"model_type": "own", "auto_map": own, "architectures": ["OwnModel"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    source = resolve(checkpoint)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_hf(source)
    assert not ran.exists()
    model, _ = load_hf(source, trust_remote_code=True)
    assert ran.exists()
    assert same_logits(model, tiny.model("gpt2"))


def test_dtypes_and_devices_that_are_none(checkpoint):
    with pytest.raises(ValueError, match=r"torch\.int8 is not one of torch\.float32"):
        load_hf(resolve(checkpoint), dtype=torch.int8)
    with pytest.raises(ValueError, match=r"device='abacus'.*Use 'cpu'"):
        load_hf(resolve(checkpoint), device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda'"):
            load_hf(resolve(checkpoint), device="cuda")


# --- names that are nothing ---


@pytest.mark.parametrize(
    "name",
    [
        "./nowhere",
        "/no/such/folder",
        "~/none",
        "~nobody-here/x",
        "nowhere.gguf",
        "../x",
        Path("nowhere"),
    ],
)
def test_a_path_that_leads_nowhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the tests run, something may lie in .. by that name
    with pytest.raises(ValueError, match=r"There is no file or folder .*Accepted: a folder"):
        resolve(name)


@pytest.mark.parametrize("name", ["a/b/c", "two words", "org/", "naïve?", "long" * 99])
def test_neither_path_nor_id(name):
    with pytest.raises(ValueError, match=r"neither an? .*path nor a hub id.*Accepted"):
        resolve(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name(name):
    with pytest.raises(ValueError, match="empty"):
        resolve(name)


def test_revision_is_for_the_hub(checkpoint):
    for local in (checkpoint, "gemma-3-270m"):
        with pytest.raises(ValueError, match=r"revision='main'.*Leave it out"):
            resolve(local, revision="main")


# --- the hub, as its own cache on this machine shows it ---


def lay_out(checkpoint: Path, hub_cache: Path) -> Path:
    """`org/mini` at COMMIT, called main and v1, as huggingface_hub lays it out."""
    folder = hub_cache / "models--org--mini"
    shutil.copytree(checkpoint, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    for ref in ("main", "v1"):
        (folder / "refs" / ref).write_text(COMMIT)
    return folder


@pytest.fixture
def cached_on_hub(tiny_gpt2_dir):
    from huggingface_hub import constants

    folder = lay_out(tiny_gpt2_dir, Path(constants.HF_HUB_CACHE))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_a_hub_id(revision, cached_on_hub):
    source = resolve("org/mini", revision=revision)
    assert source == Source("hub", "org/mini", "mini", "float32 weights", revision=COMMIT)
    model, tokenizer = load_hf(source)
    assert same_logits(model, tiny.model("gpt2"))
    assert tokenizer("Hund")["input_ids"] == tiny.tokenizer("gpt2")("Hund")["input_ids"]


def test_a_revision_is_loaded_and_not_the_newest(cached_on_hub):
    newer = "89abcdef" * 5
    shutil.copytree(cached_on_hub / "snapshots" / COMMIT, cached_on_hub / "snapshots" / newer)
    tiny.model("gpt2", n_layer=1).save_pretrained(cached_on_hub / "snapshots" / newer)
    (cached_on_hub / "refs" / "main").write_text(newer)
    for revision, n_layer in (("v1", 3), (COMMIT, 3), (None, 1), (newer, 1)):
        model, _ = load_hf(resolve("org/mini", revision=revision))
        assert model.config.n_layer == n_layer
    assert xlens.load("org/mini", revision="v1").provenance()["revision"] == COMMIT


def test_a_revision_that_is_not_there(cached_on_hub):
    with pytest.raises(ValueError, match=r"'org/mini' at revision 'v2' is not in the hub's cache"):
        resolve("org/mini", revision="v2")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("GatedRepoError", "asks you to accept terms first"),
        ("RevisionNotFoundError", "has no branch, tag or commit 'v9'"),
        ("RepositoryNotFoundError", "There is no model 'org/none' on the hub, or it is private"),
        ("EntryNotFoundError", "has no config.json: it holds no checkpoint"),
        ("HfHubHTTPError", "The hub did not give 'org/none' at revision 'v9'"),
    ],
)
def test_what_the_hub_answers_is_told(kind, told, monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        kinds = getattr(huggingface_hub.errors, kind)
        raise kinds.__new__(kinds)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match=told):
        resolve("org/none", revision="v9")


def test_a_half_downloaded_model(cached_on_hub):
    (cached_on_hub / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot load the model of 'org/mini'"):
        load_hf(resolve("org/mini"))


def test_an_unknown_model_offline():
    with pytest.raises(ValueError, match=r"'gpt2' is not in .*cannot be reached.*'gemma-3-270m'"):
        resolve("gpt2")


def test_offline_the_package_of_the_same_model_is_offered():
    with pytest.raises(ValueError, match=r"pip install 'xlens-interp\[gemma\]'"):
        resolve("google/gemma-3-270m")


@pytest.mark.parametrize("proxies", [{"https": "http://proxy.invalid:3128"}, {}])
def test_a_proxy_is_asked_and_not_the_resolver(proxies, monkeypatch):
    def unknown(*_):
        raise OSError("no such host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", lambda: proxies)
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    assert hub.online() is bool(proxies)


def test_without_a_network_it_does_not_wait(tmp_path, tiny_gpt2_dir):
    # A host that no resolver knows. The client alone would retry for 20 seconds, for each file.
    env = os.environ | {"HF_ENDPOINT": "https://hub.invalid", "HF_HOME": str(tmp_path)}
    env.pop("HF_HUB_OFFLINE")
    env = {k: v for k, v in env.items() if not k.lower().endswith("_proxy")}
    lay_out(tiny_gpt2_dir, tmp_path / "hub")
    code = (
        "import sys, time; from xlens.models.sources import load_hf, resolve\n"
        "load_hf(resolve(sys.argv[1]))\n"  # what is imported at first use isn't waiting
        "start = time.monotonic()\n"
        "try:\n    resolve('org/none')\n"
        "except ValueError as error:\n    print('cannot be reached' in str(error))\n"
        "load_hf(resolve('org/mini'))\n"
        "print(time.monotonic() - start)"
    )
    command = [sys.executable, "-c", code, str(tiny_gpt2_dir)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    told, seconds = done.stdout.split()
    print(f"{seconds} s")
    assert told == "True"
    assert float(seconds) < 20  # one file alone costs the client 23
    assert done.stderr == ""


def test_the_format_that_a_config_states(tmp_path):
    def note(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return hub._config_note(tmp_path / "config.json")

    assert note({"torch_dtype": "bfloat16"}) == "bfloat16 weights"
    assert note({"quantization_config": {"quant_method": "gptq"}}) == "gptq-quantized weights"
    assert note({"quantization_config": None}) == ""


# --- packages ---


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A tiny GGUF file in two packages whose code must not run."""
    data = tiny_gguf.make(tmp_path / "whole.gguf", kind="Q8_0").read_bytes()
    parts = {"mini_part1/data/a.part0": data[:50_001], "mini_part2/data/a.part1": data[50_001:]}
    site = tmp_path / "site"
    for name, content in parts.items():
        (site / name).parent.mkdir(parents=True)
        (site / name).write_bytes(content)
        (site / name).parents[1].joinpath("__init__.py").write_text("raise SystemExit('I ran')")
    terms = site / "mini_part1" / "data" / "TERMS.txt"
    terms.write_text("Be nice.")
    monkeypatch.syspath_prepend(site)
    wheel = wheels.Wheel(
        name="mini-1m",
        what="a test",
        licence="Terms of Niceness",
        terms="mini_part1/data/TERMS.txt",
        install="pip install mini",
        parts=tuple(parts),
        digest=sha256(data).hexdigest(),
        quantization="Q8_0",
        aliases=("mini",),
    )
    monkeypatch.setattr(wheels, "WHEELS", (wheel,))
    return site


@pytest.mark.parametrize("name", ["mini-1m", "Mini"])
def test_a_package_is_joined_and_never_run(name, packages, cache, capfd):
    source = resolve(name, progress=False)
    assert (source.kind, source.name) == ("wheel", "mini-1m")
    assert source.weights_note == "Q8_0, dequantised"
    assert source.licence == "Terms of Niceness"
    assert "mini_part1" not in sys.modules
    err = capfd.readouterr().err
    assert "Terms of Niceness" in err
    assert str(packages / "mini_part1" / "data" / "TERMS.txt") in err
    model, _ = load_hf(source)
    by_path, _ = load_hf(resolve(packages.parent / "whole.gguf", progress=False))
    assert same_logits(model, by_path)
    # The joined file is gone, the terms are told once, and the package may go too.
    assert not list(cache.rglob("*.gguf"))
    shutil.rmtree(packages)
    assert resolve(name) == source
    assert capfd.readouterr() == ("", "")


def test_a_package_that_is_not_the_known_file_is_refused(packages, cache):
    path = packages / "mini_part2" / "data" / "a.part1"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    digest = wheels.WHEELS[0].digest
    with pytest.raises(ValueError, match=rf"SHA-256 {digest} expected, [0-9a-f]{{64}} found"):
        resolve("mini", progress=False)
    assert not any(p.is_dir() for p in (cache / "models").iterdir())


def test_a_package_that_lacks_a_part(packages, cache):
    shutil.rmtree(packages / "mini_part2")
    with pytest.raises(ValueError, match=r"no mini_part2/data/a\.part1\. Run: pip install mini"):
        resolve("mini")
    assert not cache.exists()


def test_known_models(packages, cache):
    (known,) = known_models()
    assert known == KnownModel(
        name="mini-1m",
        what="a test",
        licence="Terms of Niceness",
        install="pip install mini",
        installed=True,
        cached=False,
    )
    resolve("mini", progress=False)
    assert known_models()[0].cached
    shutil.rmtree(packages / "mini_part2")
    assert not known_models()[0].installed


def test_the_table_of_packages_is_sound():
    names = [name for wheel in wheels.WHEELS for name in (wheel.name, *wheel.aliases)]
    assert len(names) == len(set(names))
    for wheel in wheels.WHEELS:
        assert len(wheel.digest) == 64
        assert wheels.find_wheel(wheel.name.upper()) is wheel
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    asked = {line.split("==")[0] for line in project["project"]["optional-dependencies"]["gemma"]}
    parts = wheels.find_wheel("gemma-3-270m").parts
    assert {p.split("/")[0].replace("_", "-") for p in parts} == {a for a in asked if "part" in a}


def test_listing_models_is_quick():
    start = time.perf_counter()
    known_models()
    assert time.perf_counter() - start < 1


# --- a tokenizer that comes without a fast version ---


def test_a_slow_tokenizer_is_refused(checkpoint):
    from transformers import ByT5Tokenizer

    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    ByT5Tokenizer().save_pretrained(checkpoint)
    (checkpoint / "vocab.txt").write_text("")
    assert not AutoTokenizer.from_pretrained(checkpoint).is_fast
    with pytest.raises(ValueError, match="no fast version"):
        load_hf(resolve(checkpoint))
