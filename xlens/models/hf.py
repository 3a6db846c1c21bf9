"""Loading with `transformers`: quietly, completely or not at all."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import nn

from xlens.errors import InputError, ModelError
from xlens.models.declared import check_config
from xlens.models.tree import tensors

AUTO = "auto"  # the dtype that a checkpoint is kept in
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Files of which a tokenizer needs one. Without any, transformers may make up an empty one.
_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "*.model",
    "vocab.*",
    "*.tiktoken",
    "tekken.json",
)


def load_model(
    location: str | Path,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device = "cpu",
    device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
    own_memory: bool = True,
    **options: Any,
) -> nn.Module:
    """Load a causal language model (`transformers.PreTrainedModel`) in evaluation mode.

    Args:
        location: A folder or a hub id.
        revision: Of a hub id.
        dtype: Of the weights, "auto" for the checkpoint's own; buffers such as rotary frequencies
            stay in fp32.
        device: Where the model goes.
        device_map: Instead of `device`: how accelerate spreads the model over several GPUs, such as
            "auto" or a device by module name.
        trust_remote_code: Run code that lies beside the checkpoint.
        local_files_only: Do not ask the hub.
        own_memory: Copy weights that a file is mapped to. Matrix kernels sum in another order when
            their operands start off a 64-byte boundary, as they do in a mapped file: the same
            weights would give logits that differ in the last digits.
        options: For `from_pretrained`.

    Raises:
        ValueError: transformers cannot load it, or only in part: weights that a checkpoint lacks
            would be random numbers.
    """
    import transformers

    dtype = checked_dtype(dtype) if dtype != AUTO else dtype
    target = checked_device(device)
    auto = "AutoModelForCausalLM"
    if "gguf_file" not in options:
        config = load_config(
            location,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
        )
        auto = auto_class(config)
        if isinstance(device_map, Mapping):
            with quietly(), explained("the model", location, options), torch.device("meta"):
                outline = getattr(transformers, auto).from_config(
                    config, trust_remote_code=trust_remote_code
                )
            check_device_map(device_map, outline)
    with quietly(), explained("the model", location, options):
        model, report = getattr(transformers, auto).from_pretrained(
            str(location),
            revision=revision or "main",
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
            output_loading_info=True,
            # Where peft is installed, an adapter is looked for, and the hub asked for one.
            adapter_kwargs={"local_files_only": local_files_only},
            **({} if device_map is None else {"device_map": device_map}),
            **options,
        )
    if absent := sorted(report["missing_keys"]):
        raise ModelError(
            f"The checkpoint {str(location)!r} is not a whole {type(model).__name__}: it lacks "
            f"{_some(absent)}, which would be random numbers. It may belong to another class "
            "(an encoder, an adapter) or be incomplete."
        )
    if dtype == AUTO:
        checked_dtype(model.dtype)
    if device_map is not None:
        _require_loaded(model, device_map)
        return model.eval()
    if own_memory and target.type == "cpu":
        _align(model)
    return model.to(target).eval()


def require_weights(model: nn.Module) -> None:
    """Refuse a model whose weights are not there to be read: on `meta`, or offloaded.

    The lens reads the unembedding and a fingerprint every weight; accelerate's offloading brings
    each in for the moment of its own forward only.

    Raises:
        ValueError: some weight is nowhere.
    """
    if any(tensor.is_meta for tensor in tensors(model)):
        named = (*model.named_parameters(), *model.named_buffers())
        lacking = [name for name, tensor in named if tensor.is_meta]
        offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())
        how = "is offloaded (accelerate)" if offloaded else "lies on meta, without numbers"
        raise ModelError(
            f"{type(model).__name__} can't be read: {len(lacking)} of its weights are not there, "
            f"first {lacking[0]}, which {how}. Load it where it fits whole: a smaller dtype, or "
            "device_map= over several GPUs without offloading."
        )


def load_tokenizer(
    location: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
    **options: Any,
) -> Any:
    """Load a fast tokenizer (`transformers.PreTrainedTokenizerFast`).

    Raises:
        ValueError: none there, or none that maps tokens to characters.
    """
    import transformers

    folder = Path(location)
    lies_here = folder.is_dir() and "gguf_file" not in options
    if lies_here and not any(any(folder.glob(pattern)) for pattern in _VOCABULARIES):
        raise ModelError(
            f"{str(location)!r} has weights but no tokenizer (no tokenizer.json, vocab.json or "
            "*.model). Save it there: tokenizer.save_pretrained(folder); or load both with "
            "transformers and call xlens.load(model, tokenizer)."
        )
    with quietly(), explained("the tokenizer", location, options):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(location),
            revision=revision or "main",
            trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
            **options,
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of {str(location)!r} ({type(tokenizer).__name__}) has no fast version, "
            "so it cannot say which characters a token covers; xlens needs that for spans."
        )
    return tokenizer


def load_config(
    location: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
) -> Any:
    """Load a model's config (`transformers.PreTrainedConfig`).

    Raises:
        ValueError: none there, or of no family that transformers knows.
    """
    import transformers

    options: dict[str, Any] = {
        "revision": revision or "main",
        "local_files_only": local_files_only,
    }
    with quietly(), explained("the config", location):
        raw, _ = transformers.PreTrainedConfig.get_config_dict(str(location), **options)
    check_config(raw, f"The config of {str(location)!r}")
    with quietly(), explained("the config", location):
        return transformers.AutoConfig.from_pretrained(
            str(location), trust_remote_code=trust_remote_code, **options
        )


def context_length(config: Any) -> int | None:
    """Longest prompt in tokens, or None where the model sets no bound (ALiBi)."""
    text = config.get_text_config()
    rope: Any = getattr(text, "rope_parameters", None)
    # Dynamic NTK names the length trained on, and stretches it.
    stretched = isinstance(rope, dict) and rope.get("rope_type") == "dynamic"
    factor = float(rope.get("factor", 1.0)) if stretched else 1.0
    for key in ("max_position_embeddings", "n_positions", "n_ctx"):
        if isinstance(value := getattr(text, key, None), int):
            return int(value * factor)
    return None


def checked_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """What weights and states can be computed and kept in, by itself or by name.

    Raises:
        ValueError: it is none of `DTYPES`.
    """
    known = {str(one).removeprefix("torch."): one for one in DTYPES}
    found = known.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if found not in DTYPES:
        raise InputError(
            f"dtype={dtype!r} is not one of {', '.join(map(str, DTYPES))}, or its name. A model "
            "quantised to 8 bits or fewer is loaded with transformers and passed as an object."
        )
    return found


def checked_device(device: str | torch.device) -> torch.device:
    """`device`, if this machine has it.

    Raises:
        ValueError: it has not.
    """
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
        if target.type == "meta":
            raise RuntimeError("it holds no numbers, only shapes")
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device={str(device)!r} cannot be used on this machine ({_first_line(error)}). "
            "Use 'cpu', or leave it out to take the GPU if there is one."
        ) from error
    return target


def check_device_map(device_map: Mapping[str, Any], outline: nn.Module) -> None:
    """Refuse a map whose names or places there aren't, or that leaves weights without a place.

    Args:
        device_map: Device by module name; "" is the whole model.
        outline: The model without its weights.

    Raises:
        ValueError: it is such a map; says which name, and which there are.
    """
    for name, place in device_map.items():
        if isinstance(place, bool) or not isinstance(place, str | int | torch.device):
            raise ModelError(
                f"device_map[{name!r}] is {place!r}; accepted is a device, such as 'cpu', 'cuda:0' "
                "or 0."
            )
        if place != "disk":  # what it would leave there is counted when it is loaded
            checked_device(f"cuda:{place}" if isinstance(place, int) else place)
    modules = dict(outline.named_modules())
    modules |= dict(outline.named_parameters()) | dict(outline.named_buffers())
    first = ", ".join(repr(name) for name, _ in outline.named_children())
    if unknown := [name for name in device_map if name not in modules]:
        raise ModelError(
            f"device_map names {unknown[0]!r}, which {type(outline).__name__} has not. It has "
            f"{first} and what is within them; '' is the whole model."
        )
    within = tuple(f"{name}." for name in device_map)
    if "" not in device_map and (
        left := [n for n, _ in outline.named_parameters() if not f"{n}.".startswith(within)]
    ):
        raise ModelError(
            f"device_map says of {len(left)} weights not where they go, the first is {left[0]!r}: "
            f"name all of {first}, or '' for the rest of the model."
        )


def _require_loaded(model: nn.Module, device_map: str | Mapping[str, Any]) -> None:
    """Weights that accelerate fetches from elsewhere at each pass can't be hashed or read out."""
    away = [name for name, weight in model.named_parameters() if weight.device.type == "meta"]
    if away:
        raise InputError(
            f"device_map={device_map!r} leaves {len(away)} weights off the devices that compute, "
            f"the first is {away[0]}: xlens needs them all in place. Use a smaller dtype "
            "(dtype=torch.bfloat16), more devices, or device='cpu'."
        )


def auto_class(config: Any) -> str:
    """Of `transformers`: the one that gives the class a checkpoint was saved from.

    Models with a vision part have their own; some are listed as causal models too, and would come
    without it.

    Raises:
        ValueError: it is neither kind of model.
    """
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    own = getattr(config, "auto_map", None) or {}
    saved = (getattr(config, "architectures", None) or [""])[0]
    seeing: str | None = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(kind)
    causal: str | None = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if "AutoModelForCausalLM" in own or (causal and saved != seeing):
        return "AutoModelForCausalLM"
    if seeing or "AutoModelForImageTextToText" in own:
        return "AutoModelForImageTextToText"
    raise ModelError(
        f"A model of type {kind!r}{f' ({saved})' if saved else ''} writes no text on from text: "
        "transformers has it neither as a causal language model nor as one with a vision part. "
        "Encoders, models from one text to another and adapters have no residual stream that ends "
        "in the next token."
    )


@torch.no_grad()
def _align(model: nn.Module) -> None:
    for tensor in (*model.parameters(), *model.buffers()):  # tied weights come once
        if tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


@contextmanager
def explained(
    what: str, location: str | Path, options: Mapping[str, Any] | None = None
) -> Generator[None]:
    """Errors of transformers as one short `ValueError`; the original stays attached.

    What a broken file raises there has no type of its own.
    """
    if gguf_file := (options or {}).get("gguf_file"):
        location = Path(location, gguf_file)
    try:
        yield
    except Exception as error:
        if isinstance(error, UnpicklingError):
            # Torch's own words advise to read it without the restriction.
            raise ModelError(
                f"{what.capitalize()} of {str(location)!r} is a pickle (.bin) that holds more than "
                "tensors, and could run any code when it is read; it was not. Take the checkpoint "
                "as safetensors, from where you trust."
            ) from None
        if "ignore_mismatched_sizes" in str(error):
            raise ModelError(
                f"{what.capitalize()} of {str(location)!r} has weights of other shapes than its "
                "config.json says: one of the two belongs to another model. Copy or download "
                "both again."
            ) from error
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{what.capitalize()} of {str(location)!r} needs code that comes with the "
                "checkpoint. If you trust its authors, pass trust_remote_code=True; it then runs "
                "with your rights, and results record it."
            ) from error
        raise ModelError(
            f"transformers cannot load {what} of {str(location)!r}: {_first_line(error)}"
        ) from error


@contextmanager
def quietly() -> Generator[None]:
    """Transformers' advice and bars off; its errors and the hub's download bars stay."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    # disable_progress_bar() would take the hub's download bars away too.
    with replaced(logging, "_tqdm_active", False):
        try:
            yield
        finally:
            logging.set_verbosity(level)


@contextmanager
def replaced(module: ModuleType, name: str, value: Any) -> Generator[None]:
    """A module's attribute for a while another; nothing happens if it has none of that name."""
    if not hasattr(module, name):
        yield
        return
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]


def _some(names: list[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
