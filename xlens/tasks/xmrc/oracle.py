"""Does the model use the sentence that holds the answer? Each sentence left out in turn.

The oracle estimate of arXiv 2504.10906: a question counts when the segment holding the answer
matters most for the model's output, whatever it then writes. A third party's account has it
"perturbation-based"; sentences as segments, leaving one out, and log-probability are our reading.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.engine import score
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts, tokenize
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap
from xlens.store import Store
from xlens.tasks.xmrc.prompts import continued

_SENTENCE = "sentence_"
_WHOLE = "whole"
_CELL = ("context_language", "question_language", "answer_language")


@dataclass(frozen=True, kw_only=True)
class OracleResult(Result):
    """Which sentence each answer hangs on.

    Attributes:
        items: One row per prompt and target: `id language target paragraph n_sentences chosen
            hit chance longest logprob drop`, and the prompts' languages where they name them.
            `chosen` is the sentence without which the target loses most log-probability, `drop`
            that loss in nats, `hit` whether it holds the answer. `chance` is the share of
            sentences that hold it; `longest` whether the longest sentence does.
        left_out: Prompts that can't tell: `id language target reason`.
    """

    items: pd.DataFrame
    left_out: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`items`."""
        return self.items

    def summary(self, *, resampling: Resampling = Resampling()) -> pd.DataFrame:
        """Rates by target and languages, with intervals over paragraphs (drawn whole).

        Returns:
            `target`, the languages, `oracle low high chance longest above above_low above_high n`;
            `above` is the rate less chance, which is what sentences drawn blindly get.

        Raises:
            ValueError: no such column of clusters.
        """
        keys = ["target", *(c for c in ("language", *_CELL) if c in self.items)]
        rows: list[dict[str, object]] = []
        for cell, mine in self.items.groupby(keys, sort=False):
            names = ["hit", "chance", "longest"]
            booted = bootstrap(
                mine[names].to_numpy(float),
                clusters=resampling.codes(mine),
                resampling=resampling,
                bounds=(0, 1),
            )
            low, high = booted.interval()
            below, above = booted.interval(lambda m: m[..., 0] - m[..., 1], [0, 1])
            rows.append(
                {
                    **dict(zip(keys, cell, strict=True)),
                    "oracle": booted.mean[0],
                    "low": low[0],
                    "high": high[0],
                    "chance": booted.mean[1],
                    "longest": booted.mean[2],
                    "above": booted.mean[0] - booted.mean[1],
                    "above_low": float(below),
                    "above_high": float(above),
                    "n": len(mine),
                }
            )
        return pd.DataFrame(rows)


@typed
def oracle_estimate(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
    targets: Mapping[str, Sequence[str]],
    *,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> OracleResult:
    """Leave each sentence of the context out in turn, and see what the answer loses.

    `A(s) = log p(target | prompt) - log p(target | prompt without s)`; a prompt is a hit if the
    largest is of a sentence that holds the answer. Questions on the same paragraph share the
    shortened contexts, which run once.

    Args:
        model: From `xlens.load`.
        prompts: With the spans `sentence_0`, `sentence_1`, … and `answer`: `reading_prompts`.
        targets: Texts whose log-probability counts, as they follow each prompt, by a name:
            `gold_targets(prompts)`, `own_targets(prompts, predictions.table["prediction"])`. An
            empty one leaves its prompt out.
        token_budget: Most tokens in a pass.
        store: Where scores are kept: a killed run goes on where it was.
        progress: Show a bar.

    Raises:
        ValueError: prompts without these spans, no targets, or not one for each prompt.
    """
    asked = list(prompts)
    if not targets:
        raise InputError("targets is empty; give gold_targets(prompts), say, by a name.")
    for name, texts in targets.items():
        if len(texts) != len(asked):
            raise InputError(f"targets[{name!r}] has {len(texts)} texts for {len(asked)} prompts.")
    found = [_sentences(prompt) for prompt in asked]
    left_out: list[tuple[str, str, str, str]] = []
    pieces: list[Prompt] = []
    candidates: list[list[str]] = []
    usable: set[tuple[int, str]] = set()
    for n, (prompt, spans) in enumerate(zip(asked, found, strict=True)):
        for name, texts in targets.items():
            if reason := _lacking(model, prompt, spans, texts[n]):
                left_out.append((prompt.id, prompt.language, name, reason))
            else:
                usable.add((n, name))
        # Two targets may be one text: it is scored once, and found by its text below.
        wanted = list(dict.fromkeys(targets[name][n] for name in targets if (n, name) in usable))
        if not wanted:
            continue
        mine = shortened(prompt, n)
        pieces += mine
        candidates += [wanted] * len(mine)
    if not pieces:
        raise InputError(
            f"None of {len(asked)} prompts has two sentences, and an answer with which it fits "
            f"into {model.name}: nothing can be left out of a context of one sentence."
        )
    scores = score(
        model,
        Prompts(pieces),
        candidates,
        token_budget=token_budget,
        store=store,
        progress=progress,
    )
    logprobs = {
        (str(id), str(text)): float(value)
        for id, text, value in scores.table[["id", "text", "logprob"]].itertuples(index=False)
    }
    rows = [
        _row(prompt, n, spans, name, texts[n], logprobs)
        for n, (prompt, spans) in enumerate(zip(asked, found, strict=True))
        for name, texts in targets.items()
        if (n, name) in usable
    ]
    return OracleResult(
        provenance=analysed(
            scores.provenance,
            "oracle",
            {"segments": "sentences, one left out; our reading of 2504.10906"},
        ),
        items=pd.DataFrame(rows),
        left_out=pd.DataFrame(left_out, columns=["id", "language", "target", "reason"]),
    )


@typed
def gold_targets(prompts: Prompts | Sequence[Prompt]) -> list[str]:
    """The first right answer of each reading prompt, as it would follow it."""
    return [continued(p, str(json.loads(str(p.meta["references"]))[0])) for p in prompts]


@typed
def own_targets(prompts: Prompts | Sequence[Prompt], predictions: Sequence[str]) -> list[str]:
    """What the model itself answered to each reading prompt, as it would follow it.

    Raises:
        ValueError: not one for each prompt.
    """
    asked = list(prompts)
    if len(asked) != len(predictions):
        raise InputError(f"There are {len(asked)} prompts but {len(predictions)} predictions.")
    return [continued(p, text) if text else "" for p, text in zip(asked, predictions, strict=True)]


def _sentences(prompt: Prompt) -> list[tuple[int, int]]:
    names = sorted(
        (n for n in prompt.spans if n.startswith(_SENTENCE)),
        key=lambda n: int(n.removeprefix(_SENTENCE)),
    )
    if not names or "answer" not in prompt.spans:
        raise InputError(
            f"Prompt {prompt.id!r} ({prompt.language}) has the spans {list(prompt.spans)}; "
            "sentence_0, sentence_1, … and answer are needed: make prompts with reading_prompts."
        )
    return [prompt.spans[name] for name in names]


def shortened(prompt: Prompt, number: int) -> list[Prompt]:
    """The prompt, and it without each of its sentences; their ids begin with the number.

    Raises:
        ValueError: a prompt without the spans of its sentences.
    """
    spans = _sentences(prompt)
    return [
        Prompt(prompt.text, prompt.language, f"{number}/{_WHOLE}"),
        *(
            Prompt(_without(prompt.text, span), prompt.language, f"{number}/{k}")
            for k, span in enumerate(spans)
        ),
    ]


def _lacking(
    model: HookedModel, prompt: Prompt, spans: Sequence[tuple[int, int]], target: str
) -> str:
    """Why a prompt can't tell what its target hangs on, or nothing."""
    if len(spans) < 2:
        return "one sentence only"
    if not target.strip():
        return "no answer"
    # Written down and cut again, an answer may have more tokens than were generated.
    whole = Prompt(prompt.text + target, prompt.language, prompt.id)
    long = model.n_ctx is not None and len(tokenize(model.tokenizer, [whole])[0]) > model.n_ctx
    return "too long with its answer" if long else ""


def _without(text: str, span: tuple[int, int]) -> str:
    """The text without a sentence and the space after it."""
    start, stop = span
    rest = text[stop:]
    return text[:start] + (rest.lstrip(" ") if rest.startswith(" ") else rest)


def _row(
    prompt: Prompt,
    n: int,
    spans: Sequence[tuple[int, int]],
    name: str,
    target: str,
    logprobs: Mapping[tuple[str, str], float],
) -> dict[str, object]:
    whole = logprobs[f"{n}/{_WHOLE}", target]
    drops = np.array([whole - logprobs[f"{n}/{k}", target] for k in range(len(spans))])
    start, stop = prompt.spans["answer"]
    # An answer across a boundary is held by both sentences.
    holds = np.array([a < stop and start < b for a, b in spans])
    chosen = int(drops.argmax())
    longest = int(np.argmax([b - a for a, b in spans]))
    return {
        "id": prompt.id,
        "language": prompt.language,
        **{key: str(prompt.meta[key]) for key in _CELL if key in prompt.meta},
        "target": name,
        "paragraph": str(prompt.meta.get("paragraph", prompt.id)),
        **{name: str(prompt.meta[name]) for name in ("header",) if name in prompt.meta},
        "n_sentences": len(spans),
        "chosen": chosen,
        # Where several matter alike the choice is nobody's: right only if all of them hold it.
        "hit": bool(holds[drops == drops[chosen]].all()),
        "chance": float(holds.mean()),
        "longest": bool(holds[longest]),
        "logprob": whole,
        "drop": float(drops[chosen]),
    }
