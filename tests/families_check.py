"""Every family that xlens lists, as a tiny random model, held to what the core promises.

    make families                            # all, and writes the table of docs/models.md
    python tests/families_check.py opt glm   # some, and writes nothing

For each: the readout of the last point is the model's logits; a prompt's states are the same alone
and in a batch, with and without shared prefixes; greedy text is what a bare loop over whole passes
writes. Not part of the quick suite, which goes through ten of them.
"""

import argparse
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import kit

import tiny
import xlens
from xlens import Prompt, Prompts
from xlens.engine.trust import shares_prefixes
from xlens.models import HookedModel

DOCS = Path(__file__).parent.parent / "docs" / "models.md"
START, END = "<!-- families: written by make families -->", "<!-- families: end -->"
CLOSE = 2e-5  # relative, fp32


@dataclass(frozen=True)
class Row:
    """What was measured of one configuration."""

    name: str
    family: str
    lens: float
    batch: float
    shared: float
    trusted: bool
    greedy: bool

    @property
    def good(self) -> bool:
        """Whether every promise is kept."""
        return max(self.lens, self.batch, self.shared) < CLOSE and self.greedy


def check(name: str) -> Row:
    """Measures one configuration of `tiny.ALL`."""
    model = xlens.load(tiny.model(name), tiny.tokenizer(name), device="cpu")
    prompts = kit.mixed()
    beginning = "".join(tiny.TEXT.values())[:60]
    begun = Prompts([Prompt(beginning[:30] + p.text[:40], p.language, p.id) for p in prompts])
    with model.evaluating():
        alone = [plain(model, t.ids) for t in model.tokenize(prompts)]
    acts = xlens.harvest(model, prompts, slots="all", token_budget=250, progress=False)
    batch = max(
        kit.relative_error(acts.rows("all", i), states) for i, (states, _) in enumerate(alone)
    )
    lens = max(
        float((model.readout.logits(states[-1]) - logits).abs().max() / logits.std())
        for states, logits in alone
    )
    apart, together = (
        xlens.harvest(model, begun, slots="all", share_prefixes=share, progress=False)
        for share in (False, True)
    )
    shared = kit.relative_error(together.slot("all").values, apart.slot("all").values)
    return Row(
        name,
        model.family.name,
        lens,
        batch,
        shared,
        shares_prefixes(model),
        greedy(model, begun[:4]),
    )


@torch.inference_mode()
def plain(model: HookedModel, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """All points and the logits of one prompt, by hooks of our own and nothing but ids."""
    states: list[Tensor] = []

    def before(_m: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        states.append(args[0] if args else next(iter(kwargs.values())))

    def after(_m: object, _a: object, out: Tensor | tuple[Tensor, ...]) -> None:
        states.append(out if isinstance(out, Tensor) else out[0])

    handles = [model.blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after) for block in model.blocks]
    try:
        logits = model.hf_model(torch.tensor([list(ids)]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(states), logits


@torch.inference_mode()
def greedy(model: HookedModel, prompts: Prompts, n_tokens: int = 12) -> bool:
    """Whether generated tokens are those of a loop that runs everything again for each."""
    made = xlens.generate(model, prompts, max_new_tokens=n_tokens, progress=False)
    for tokens, got in zip(model.tokenize(prompts), made.table["tokens"], strict=True):
        ids = list(tokens.ids)
        if not got:
            return False
        for token in got:
            logits = model.hf_model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            if int(logits.argmax()) != token:
                return False
            ids.append(token)
    return True


def table(rows: list[Row]) -> str:
    """The table of the docs, a family a line."""
    lines = [
        "| family | configurations | lens = logits | batch = alone | prefixes |",
        "|---|---|---|---|---|",
    ]
    for family in dict.fromkeys(row.family for row in rows):
        own = [row for row in rows if row.family == family]
        names = ", ".join(f"`{row.name}`" for row in own)
        worst = [max(getattr(row, what) for row in own) for what in ("lens", "batch")]
        trusted = "shared" if all(row.trusted for row in own) else "run whole"
        shown = " | ".join(f"{error:.0e}" if error else "0" for error in worst)
        lines.append(f"| {family} | {names} | {shown} | {trusted} |")
    return "\n".join(lines)


def main() -> None:
    """Checks, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="some of them")
    names = parser.parse_args().names
    torch.set_num_threads(1)
    rows: list[Row] = []
    bad: list[str] = []
    for name in names or tiny.ALL:
        began = time.monotonic()
        try:
            row = check(name)
        except Exception as error:
            bad.append(name)
            traceback.print_exc(limit=-4)
            print(f"{name:20} FAILS: {type(error).__name__}: {error}", flush=True)
            continue
        rows.append(row)
        bad += [] if row.good else [name]
        print(
            f"{name:20} {'good' if row.good else 'BAD':5} lens {row.lens:.1e}  batch "
            f"{row.batch:.1e}  shared {row.shared:.1e}{'' if row.trusted else ' (untrusted)'}  "
            f"greedy {row.greedy}  {time.monotonic() - began:.1f} s",
            flush=True,
        )
    if bad:
        sys.exit(f"not as promised: {', '.join(bad)}")
    if not names:
        text = DOCS.read_text("utf-8")
        head, rest = text.split(START)
        tail = rest.split(END)[1]
        DOCS.write_text(f"{head}{START}\n{table(rows)}\n{END}{tail}", "utf-8")
        print(f"{len(rows)} configurations; table written to {DOCS}")


if __name__ == "__main__":
    main()
