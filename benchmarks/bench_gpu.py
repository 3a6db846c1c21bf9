"""The core on a GPU in bf16, 1 and 8 billion weights, against the bare model and the peers.

Wall-clock time between two synchronisations. Beside every figure stands the floor: the bytes that
must be read over the card's bandwidth, or the operations over its peak, whichever takes longer.
Weights are random and made on the card. `--tiny --device cpu` tries the script anywhere.
"""

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from bench_harvest import PLAIN
from common import (
    Times,
    draw_ids,
    interleaved,
    make_model,
    padded,
    planned_batches,
    prompts_of,
    quiet,
    ratios,
    scratch_folder,
)
from tables import Row, write
from torch import nn

from xlens.engine import generate, harvest, harvest_to_store, relevance, stream
from xlens.engine.backoff import TOKEN_BUDGET
from xlens.engine.graphs import traced, weights_constant
from xlens.engine.room import kv_bytes
from xlens.models import HookedModel, Readout
from xlens.store import Store

SHAPES = ("Llama 3.2 1B", "Llama 3.1 8B")
VOCABULARIES = (131_072, 262_144)


@dataclass(frozen=True)
class Peak:
    """What a device can do in a second: operations in bf16 and fp32, bytes of its memory.

    Dense, without sparsity, from the makers' data sheets.
    """

    bf16: float
    fp32: float
    bytes: float

    def floor(self, *, operations: float, read: float, fp32: bool = False) -> float:
        """Seconds below which it can't be done."""
        return max(operations / (self.fp32 if fp32 else self.bf16), read / self.bytes)


PEAKS = {
    "H200": Peak(989e12, 67e12, 4.8e12),
    "H100": Peak(989e12, 67e12, 3.35e12),
    "A100": Peak(312e12, 19.5e12, 2.04e12),
}


@dataclass
class Run:
    """The settings, what is measured so far, and how long it may take."""

    args: argparse.Namespace
    peak: Peak
    ends: float
    sections: int
    rows: list[Row]
    times: dict[str, dict[str, Times]]
    notes: list[str]

    @property
    def device(self) -> str:
        return self.args.device

    def sync(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def left_out(self, what: str) -> bool:
        """Whether there is no time left for it, which is said."""
        if time.monotonic() < self.ends:
            return False
        self.notes.append(f"{what}: left out, the time was up")
        return True

    def compare(
        self,
        what: str,
        setting: str,
        methods: dict[str, Callable[[], object]],
        *,
        target: str,
        floor: float,
        figure: Any = "speed",
    ) -> None:
        """Each method after the other, in rounds, as long as this section's share of the time."""
        share = max(0.0, self.ends - time.monotonic()) / max(1, self.sections)
        self.sections -= 1
        if self.left_out(f"{what}, {setting}"):
            return
        first, *peers = methods
        for peer in list(peers):  # one that fails here must not cost the others their figures
            try:
                methods[peer]()
            except Exception as error:
                self.notes.append(f"{peer}: failed, {type(error).__name__}: {error}"[:300])
                del methods[peer]
        begun = time.monotonic()
        found = interleaved(methods, 1, sync=self.sync)
        cost = (time.monotonic() - begun) / 2  # each ran twice, once to get warm
        more = min(self.args.rounds - 1, int((share - 3 * cost) / cost)) if cost < share else 0
        for n in range(max(0, more)):
            nothing = dict.fromkeys(methods, lambda: None)
            again = interleaved(methods, 1, warm=nothing, sync=self.sync)
            for name, taken in again.items():
                found[name].wall[n + 1], found[name].cpu[n + 1] = taken.wall[0], taken.cpu[0]
        mine = sorted(found[first].wall.values())[len(found[first].wall) // 2]
        note = f"{what}, {setting}: {mine:.4f} s, floor {floor:.4f} s ({floor / mine:.0%} of it)"
        self.notes.append(note)
        print(note, flush=True)
        self.times[f"{what}, {setting}"] = found
        for n, peer in enumerate(p for p in peers if p in found):
            over, under = (peer, first) if figure == "speed" else (first, peer)
            values = ratios(found[over], found[under], clock="wall")
            self.rows.append(Row(what, setting, peer, values, figure, target if n == 0 else ""))


def harvests(run: Run, model: HookedModel, shape: str) -> None:
    small = run.args.quick
    size = model.size.n_params
    for what, n, length in (("last", 512, 128), ("all, into a store", 64, 128)):
        n, length = (8, 16) if small else (n, length)
        sequences = draw_ids([length] * n)
        prompts, tokens = prompts_of(sequences), n * length
        budget = TOKEN_BUDGET.get(model.device.type, TOKEN_BUDGET["cuda"])
        batches = planned_batches(sequences, budget, device=model.device)

        @torch.inference_mode()
        def bare(batches: Any = batches) -> None:
            for batch in batches:
                model.body(**batch, use_cache=False)

        def last(prompts: Any = prompts) -> object:
            return harvest(model, prompts, progress=False)

        def stored(prompts: Any = prompts) -> None:
            with scratch_folder() as folder:
                harvest_to_store(
                    model, prompts, Store(folder), slots="all", dtype=model.dtype, progress=False
                )

        floor = run.peak.floor(
            operations=2 * size * tokens, read=len(batches) * size * model.dtype.itemsize
        )
        run.compare(
            f"harvest {what}",
            f"{shape}, {n} × {length}",
            {"xlens": last if what == "last" else stored, PLAIN: bare},
            target="≥ 0.95" if what == "last" else "≥ 0.85",
            floor=floor,
        )


def lenses(run: Run, vocabulary: int) -> None:
    small = run.args.quick
    d, layers, n = (32, 3, 16) if small else (4_096, 33, 256)
    v = 1_000 if small else vocabulary
    dtype = torch.bfloat16
    unembed = nn.Linear(d, v, bias=False, device=run.device, dtype=dtype)
    norm = nn.RMSNorm(d, device=run.device, dtype=dtype)
    readout = Readout(norm, unembed, softcap=None, logit_scale=1.0, fingerprint=lambda: "random")
    resid = torch.randn(layers, n, d, device=run.device)
    targets = torch.randint(v, (n, 2, 4))

    @torch.inference_mode()
    def product() -> None:
        normed, width = readout.normed(resid).flatten(0, 1), 8_192
        for a in range(0, v, width):
            project = readout.onto(slice(a, min(a + width, v)))
            for rows in normed.split(4_096):
                project(rows)

    def lens() -> object:
        return stream(readout, resid, targets=targets, top_k=10, statistics=("entropy",))

    run.compare(
        "lens, top 10 + targets + entropy",
        f"V = {v:,}, d = {d:,}, {layers * n:,} states",
        {"xlens": lens, "the bare product": product},
        target="≤ 1.15",
        figure="time",
        floor=run.peak.floor(
            operations=2 * layers * n * d * v, read=v * d * dtype.itemsize, fp32=True
        ),
    )


def texts(run: Run, model: HookedModel, shape: str) -> None:
    n, length, new = (4, 8, 4) if run.args.quick else (64, 128, 64)
    sequences = draw_ids([length] * n)
    prompts, batch = prompts_of(sequences), padded(sequences, device=model.device)
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}

    @torch.inference_mode()
    def theirs() -> None:
        asked = {k: batch[k] for k in ("input_ids", "attention_mask")}
        hf_model: Any = model.hf_model
        hf_model.generate(**asked, **options)

    methods: dict[str, Callable[[], object]] = {
        "xlens": lambda: generate(model, prompts, max_new_tokens=new, progress=False),
        "transformers generate, batched": theirs,
    }
    if find_spec("vllm") and run.device.startswith("cuda"):
        methods["vLLM (weights of its own)"] = _vllm(model, sequences, new)
    held = n * (length + new / 2) * kv_bytes(model)
    read = model.size.n_params * model.dtype.itemsize + model.d_vocab * model.d_model * 2
    run.compare(
        "generate",
        f"{shape}, {n} × {new}",
        methods,
        target="≥ 1",
        floor=new * run.peak.floor(operations=0, read=read + held)
        + run.peak.floor(operations=2 * model.size.n_params * n * length, read=0),
    )


def _vllm(model: HookedModel, sequences: list[list[int]], new: int) -> Callable[[], object]:
    def made() -> Callable[[], object]:
        from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

        with scratch_folder() as folder:
            config: Any = model.config
            config.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
            llm = LLM(str(folder), load_format="dummy", gpu_memory_utilization=0.3)
        how = SamplingParams(max_tokens=new, temperature=0, ignore_eos=True)
        asked = [{"prompt_token_ids": ids} for ids in sequences]
        return lambda: llm.generate(asked, how, use_tqdm=False)

    ready: list[Callable[[], object]] = []

    def go() -> object:
        if not ready:
            ready.append(made())
        return ready[0]()

    return go


def relevances(run: Run, model: HookedModel, shape: str) -> None:
    n, length = (2, 8) if run.args.quick else (32, 128)
    sequences = draw_ids([length] * n)
    prompts, targets = prompts_of(sequences), [5] * n

    def both() -> None:
        with torch.enable_grad(), model.evaluating(), weights_constant(model):
            states = traced(model, sequences, [0])
            torch.autograd.grad(states[model.n_layers][:, -1].float().sum(), states[0])

    run.compare(
        "relevance of all tokens at all layers",
        f"{shape}, {n} × {length}",
        {
            "xlens": lambda: relevance(model, prompts, targets=targets, progress=False),
            "forward + backward": both,
        },
        target="≤ 1.3",
        figure="time",
        # Backward to the states alone: as much again as forward.
        floor=run.peak.floor(operations=4 * model.size.n_params * n * length, read=0),
    )


def measured_peak(device: str) -> Peak:
    """Of a card that is not in the table, or of a CPU: what a large product and copy reach."""
    n = 4_096 if device.startswith("cuda") else 256
    sync = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def seconds(work: Callable[[], object]) -> float:
        work()
        sync()
        begun = time.perf_counter()
        for _ in range(5):
            work()
        sync()
        return (time.perf_counter() - begun) / 5

    reached: list[float] = []
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(n, n, device=device, dtype=dtype)
        reached.append(2 * n**3 / seconds(lambda a=a: a @ a))
    block = torch.zeros(n * n * 4, device=device)
    return Peak(reached[0], reached[1], 2 * block.nbytes / seconds(lambda: block.add_(1)))


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", "--tiny", action="store_true", help="tiny shapes, two rounds")
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="at most (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=330.0, help="after which no more begins")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    args = parser.parse_args()
    if args.quick:
        args.rounds = min(args.rounds, 2)
    quiet(args.threads)
    return args


def main() -> None:
    args = _settings()
    cuda = args.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        print("no GPU: not measured")
        return
    card = torch.cuda.get_device_name() if cuda else "no card"
    known = next((peak for name, peak in PEAKS.items() if name in card), None)
    peak = known or measured_peak(args.device)
    told = f"{card}: {peak.bf16 / 1e12:.3g} bf16 and {peak.fp32 / 1e12:.3g} fp32 TFLOP/s, "
    told += f"{peak.bytes / 1e12:.3g} TB/s ({'data sheet' if known else 'measured here'})"
    print(told, flush=True)
    sections = len(VOCABULARIES) + 4 * len(SHAPES)
    ends = time.monotonic() + args.seconds
    run = Run(args, peak, ends, sections, [], {}, [told, "Wall-clock time."])
    for vocabulary in VOCABULARIES:
        lenses(run, vocabulary)
    for shape in SHAPES:
        if run.left_out(shape):
            break
        model = make_model(shape, quick=args.quick, device=args.device, dtype=torch.bfloat16)
        for section in (harvests, texts, relevances):
            section(run, model, shape)
        del model
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    write("gpu", run.rows, args, times=run.times, notes=run.notes)


if __name__ == "__main__":
    main()
