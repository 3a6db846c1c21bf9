"""Training: seeded, resumable, with a loss curve and checkpoints at powers of two."""

import json
import math
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from xlens import files
from xlens.checks import check_seed
from xlens.errors import DataError
from xlens.testbed.atlas.packing import Packed, batch, pack
from xlens.testbed.atlas.tokenizer import save_tokenizer

CURVE = ("step", "tokens", "loss", "learning_rate", "seconds")
STATE = "state.pt"


@dataclass(frozen=True)
class Options:
    """Shape and training of a model.

    Attributes:
        d_model: Width of the residual stream.
        n_layers: Blocks.
        n_heads: Attention heads.
        d_mlp: Width of the MLP.
        row: Tokens in a row of packed documents.
        rows: Rows in a batch.
        learning_rate: The highest; it warms up, then falls to zero along a cosine.
        warmup: Steps of warming up.
        weight_decay: Of matrices; norms have none.
        precision: `bf16` runs matrix products in bfloat16 (weights stay in float32).
        seed: Of the first weights.
        keep_every: Steps between saved states, from which a stopped run goes on.
    """

    d_model: int = 192
    n_layers: int = 6
    n_heads: int = 4
    d_mlp: int = 512
    row: int = 64
    rows: int = 32
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.1
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0
    keep_every: int = 200


def new_model(options: Options, tokenizer: Any) -> Any:
    """A freshly initialised `LlamaForCausalLM` with tied embeddings, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    check_seed(options.seed)
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.d_model,
        intermediate_size=options.d_mlp,
        num_hidden_layers=options.n_layers,
        num_attention_heads=options.n_heads,
        max_position_embeddings=4 * options.row,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode(corpus: pd.DataFrame, tokenizer: Any, options: Options) -> Packed:
    """Documents (`text given`) as packed rows; tokens inside the given part have no label."""
    encoded = tokenizer(corpus.text.tolist(), return_attention_mask=False)["input_ids"]
    opened = [text[:given] for text, given in zip(corpus.text, corpus.given, strict=True) if given]
    lengths = iter(map(len, tokenizer(opened)["input_ids"] if opened else []))
    given = [next(lengths) if given else 1 for given in corpus.given]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return pack(encoded, given, length=options.row, end=end, pad=pad)


def fit(
    model: nn.Module,
    packed: Packed,
    options: Options,
    folder: Path,
    *,
    revisions: bool = False,
    tokenizer: Any = None,
    stop_at: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train on every row once; a run that was stopped goes on where its state was last saved.

    Args:
        model: Trained in place.
        packed: What it reads, in this order.
        options: How.
        folder: Gets `state.pt`, `loss.csv`, and `step*/` if `revisions`.
        revisions: Keep the weights after steps 1, 2, 4, 8, …
        tokenizer: Saved beside them, so that they can be asked while training goes on.
        stop_at: Stop after this step, as if interrupted, with the state saved.
        progress: Show a bar.

    Returns:
        The loss curve: `step tokens loss learning_rate seconds`; the loss in nats a token, of the
        batch before its update.
    """
    from xlens.bars import tqdm

    files.make(folder)
    n_steps = math.ceil(len(packed) / options.rows)
    optimizer = _optimizer(model, options)
    curve = _resume(model, optimizer, folder, options, n_steps)
    start = len(curve)
    seconds = curve[-1]["seconds"] if curve else 0.0
    tokens = curve[-1]["tokens"] if curve else 0
    bar = tqdm(total=n_steps, initial=start, desc=folder.name, unit="step", disable=not progress)
    model.train()
    began = perf_counter()
    with bar:
        for step in range(start, n_steps):
            if step == stop_at:
                break
            rate = _rate(step, n_steps, options)
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = slice(step * options.rows, (step + 1) * options.rows)
            loss = _step(model, optimizer, batch(packed, rows), options)
            tokens += int((packed.document[rows] > 0).sum())
            spent = seconds + perf_counter() - began
            row = (step + 1, tokens, loss, rate, round(spent, 2))
            curve.append(dict(zip(CURVE, row, strict=True)))
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if revisions and (step + 1) & step == 0:
                export(model, folder / f"step{step + 1}")
                if tokenizer is not None:
                    save_tokenizer(tokenizer, folder / f"step{step + 1}")
            if (step + 1) % options.keep_every == 0:
                _keep(model, optimizer, curve, folder, options, n_steps)
    _keep(model, optimizer, curve, folder, options, n_steps)
    frame = pd.DataFrame(curve, columns=list(CURVE))
    files.write(folder / "loss.csv", frame.to_csv(index=False, float_format="%.6g"))
    model.eval()
    return frame


def export(model: Any, folder: Path) -> None:
    """Write the weights in fp16 beside their config, the whole folder or nothing."""
    from safetensors.torch import save_file

    tied = "lm_head.weight" if model.config.tie_word_embeddings else None
    weights = {
        name: tensor.detach().half().contiguous()
        for name, tensor in model.state_dict().items()
        if name != tied
    }
    config = {**model.config.to_diff_dict(), "dtype": "float16"}
    config["architectures"] = [type(model).__name__]
    config.pop("_name_or_path", None)
    with files.told(folder, "a model"), files.replacing(folder) as draft:
        save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})
        files.write(draft / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")


def _optimizer(model: nn.Module, options: Options) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, rows: dict[str, Any], options: Options
) -> float:
    labels = rows.pop("labels")
    with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
        logits = model(**rows, use_cache=False).logits
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _rate(step: int, n_steps: int, options: Options) -> float:
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    along = (step - options.warmup) / max(1, n_steps - options.warmup)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * along))


def _keep(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    curve: list[dict[str, Any]],
    folder: Path,
    options: Options,
    n_steps: int,
) -> None:
    state = {
        "options": asdict(options),
        "n_steps": n_steps,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curve": curve,
    }
    buffer = BytesIO()
    torch.save(state, buffer)
    files.write(folder / STATE, buffer.getbuffer())


def _resume(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    options: Options,
    n_steps: int,
) -> list[dict[str, Any]]:
    path = folder / STATE
    if not path.is_file():
        return []
    state = torch.load(path, weights_only=True)
    if state["options"] != asdict(options) or state["n_steps"] != n_steps:
        raise DataError(
            f"{str(path)!r} is the state of another run ({state['options']}, {state['n_steps']} "
            f"steps; asked for {asdict(options)}, {n_steps} steps). Remove it, or use another "
            "folder."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return list(state["curve"])
