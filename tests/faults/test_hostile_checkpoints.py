"""Checkpoints that are broken, or mean harm: refused by name, before anything is built."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import tiny_gguf
import torch
from safetensors.torch import load_file

import tiny
import xlens
from xlens.models.declared import check_config


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Without the checks that the tests put around every function."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("gpt2", tmp_path_factory.mktemp("checkpoints") / "whole")


def config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def index(target: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        names = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
        body = {"metadata": {}, "weight_map": dict.fromkeys(names, target)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(body))

    return change


class Code:
    """A pickle that runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch PWNED",)


def pickled(what: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(what, folder / "pytorch_model.bin")

    return change


def truncated(folder: Path) -> None:
    pickled({"a": torch.ones(9)})(folder)
    os.truncate(folder / "pytorch_model.bin", 100)


WAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle of code": (pickled({"a": Code()}), r"pickle.*any code.*safetensors"),
    "a pickle of anything": (pickled(Path("/")), r"pickle.*any code.*safetensors"),
    "a pickle cut off": (truncated, "cannot load the model"),
    "an empty pickle": (
        lambda f: (pickled({})(f), (f / "pytorch_model.bin").write_bytes(b"")),
        "cannot load the model",
    ),
    "index outside": (index("../outside.safetensors"), r"'\.\./outside.*no file of its folder"),
    "index at the root": (index("/etc/passwd"), r"'/etc/passwd'.*no file of its folder"),
    "index on Windows": (index("..\\outside.safetensors"), "no file of its folder"),
    "index to nothing": (index("none.safetensors"), r"lacks 'none\.safetensors'"),
    "index to a number": (index(7), "in 7, which is no file"),
    "index of junk": (
        lambda f: (index(7)(f), text("model.safetensors.index.json", "{")(f)),
        "no index",
    ),
    "index of a list": (
        lambda f: (index(7)(f), text("model.safetensors.index.json", "[]")(f)),
        "no index",
    ),
    "10^9 layers": (config(n_layer=10**9), "n_layer is 1000000000; accepted are 1 to 10,000"),
    "no layers": (config(n_layer=0), "n_layer is 0"),
    "fewer than none": (config(n_layer=-1), "n_layer is -1"),
    "layers beyond": (config(n_layer=float("inf")), "n_layer is inf"),
    "many layers": (config(n_layer="many"), r"config of .*n_layer.*expected int"),
    "10^9 layers within": (config(text_config={"num_hidden_layers": 10**9}), "text_config.num_hid"),
    "10^9 experts": (config(num_local_experts=10**9), "num_local_experts is 1000000000"),
    "10^7 parts": (config(n_layer=5000, num_experts=5000), "25,000,000 parts"),
    "10^12 tokens": (config(vocab_size=10**12), "weights of other shapes"),
    "10^12 positions": (config(n_positions=10**12), "weights of other shapes"),
    "10^9 wide": (config(n_embd=10**9), "cannot load the model"),
    "no heads": (config(n_head=0), "cannot load the model"),
    "no numbers": (config(layer_norm_epsilon=float("nan")), "refused"),
    "a config that is a list": (text("config.json", "[]"), "cannot load the config"),
    "a config cut off": (text("config.json", '{"model_'), "cannot load the config"),
    "a config of brackets": (text("config.json", "[" * 100_000), "cannot load the config"),
    "a number of 5,000 digits": (
        text("config.json", '{"model_type": "gpt2", "n_layer": %s}' % ("9" * 5000)),
        "cannot load the config",
    ),
    "a model of nobody": (config(model_type="nobody"), "cannot load the config"),
    "no tokenizer inside": (text("tokenizer.json", "{}"), "cannot load the tokenizer"),
    "a tokenizer cut off": (text("tokenizer.json", '{"version": '), "cannot load the tokenizer"),
    "a generation config cut off": (text("generation_config.json", "{"), "no generation config"),
    "a generation config of bytes": (
        lambda f: (f / "generation_config.json").write_bytes(b"\xff"),
        "no generation config",
    ),
    "a tokenizer's list": (text("tokenizer_config.json", "[]"), "cannot load the tokenizer"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_is_refused_by_name(
    way: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    change, said = WAYS[way]
    change(folder)
    with pytest.raises(ValueError, match=f"(?s){said}") as caught:
        xlens.load(folder)
    told = str(caught.value)
    assert "weights_only" not in told and len(told) < 1000
    assert "model" in told and not (tmp_path / "PWNED").exists()


BASE = '"base_model_name_or_path": "WHOLE", "peft_type": "LORA", "r": 4'


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", "no adapter's config"),
        ("[]", "no adapter's config"),
        ("[" * 100_000, "no adapter's config"),
        ('{"base_model_name_or_path": {"a": 1}}', "which is no name"),
        ('{"base_model_name_or_path": "WHOLE", "peft_type": "NO"}', "'NO'"),
        (f'{{{BASE}, "target_modules": ["c_attn"]}}', "may hold code, and is not run"),
    ],
)
def test_an_adapter_is_refused_by_name(
    said: str, message: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "an adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(said.replace("WHOLE", str(whole)))
    torch.save({"a": Code()}, folder / "adapter_model.bin")
    for load in (lambda: xlens.load(folder), lambda: xlens.load(whole, adapter=folder)):
        with pytest.raises(ValueError, match=f"(?s){message}") as caught:
            load()
        assert "an adapter" in str(caught.value)
        assert "weights_only" not in str(caught.value) and not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, "int8", "float", None])
def test_weights_are_no_whole_numbers(whole: Path, dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"is not one of torch\.float32|accepted is dtype"):
        xlens.load(whole, dtype=dtype)
    model = xlens.load(whole)
    with pytest.raises(ValueError, match="dtype"):
        xlens.harvest(model, [xlens.Prompt("a", "en", "1")], dtype=dtype)


def test_configs_of_large_models_are_believed() -> None:
    for own in (
        {"num_hidden_layers": 61, "n_routed_experts": 256, "num_nextn_predict_layers": 0},
        {"n_layer": 126, "max_position_embeddings": 10_485_760, "vocab_size": 262_144},
        {"text_config": {"num_hidden_layers": 48, "num_experts": 128}, "vision": {"depth": 32}},
        {"num_hidden_layers": 24, "encoder_layers": 0, "tie": True, "layer_types": ["a"] * 24},
    ):
        check_config(own, "it")


def test_a_gguf_file_of_too_many_layers(tmp_path: Path) -> None:
    path = tiny_gguf.make(tmp_path / "a.gguf", fields={"general.block_count": 10**9})
    with pytest.raises(ValueError, match=r"header of .*block_count is 1000000000"):
        xlens.load(path)
