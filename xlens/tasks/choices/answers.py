"""Which option a model chooses, by one of four rules, and whether it is the right one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from xlens.checks import typed
from xlens.engine import generate, harvest, score
from xlens.engine.generate import room_for
from xlens.errors import InputError
from xlens.headers import HEADERS, Headers
from xlens.lengths import By, compared
from xlens.models import HookedModel
from xlens.models.beginnings import Match, tokens_of
from xlens.prompts import Prompt, Prompts
from xlens.results import Result, analysed
from xlens.store import Store
from xlens.tasks.choices.data import Choices
from xlens.tasks.choices.prompts import demonstrations, language_prompts
from xlens.tasks.choices.scoring import asked_how, headed
from xlens.tasks.choices.text import folded

Rule = Literal["sequence", "prefix_sum", "first_token", "generation"]
RULES: Mapping[Rule, str] = {
    "sequence": "the option whose text is most probable",
    "prefix_sum": "the option whose beginnings, of any length, are together the most probable next "
    "token (arXiv 2405.13816)",
    "first_token": "the option whose first token is the most probable",
    "generation": "the option that the model writes",
}
_SETS: Mapping[str, Match] = {"prefix_sum": "prefixes", "first_token": "first"}
_CHUNK = 256  # prompts whose logits are in memory together
NOTHING = -1


@dataclass(frozen=True, kw_only=True)
class ChoiceAnswers(Result):
    """A model's answers to multiple-choice items.

    Attributes:
        table: One row per item and language: `id language paragraph gold said value tie`. `said` is
            the number of the chosen option, the first of equals (-1: none of them was written),
            `value` 1 where it is right and else 0, `tie` whether another was as good.
        rule: How it was chosen.
        chance: By language, how often guessing is right.
    """

    table: pd.DataFrame
    rule: str
    chance: dict[str, float]

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of right answers by language."""
        means = self.table.groupby("language", sort=False)["value"].mean()
        return {str(tag): float(mean) for tag, mean in means.items()}


@typed
def answer_choices(
    model: HookedModel,
    choices: Choices,
    *,
    rule: Rule = "sequence",
    by: By = "logprob",
    calibrated: bool = False,
    languages: Iterable[str] | None = None,
    shots: int = 0,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Choices | None = None,
    show_options: bool = False,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> ChoiceAnswers:
    """Let a model answer multiple-choice items.

    | rule | an option's score |
    |---|---|
    | `sequence` | log-probability of its whole text (`by`: that, or per token, byte, character) |
    | `prefix_sum` | Σ p over the tokens that begin it, at the last position: the rule of arXiv \
2405.13816's code ("constrained decoding"), with the tokens asked of the tokenizer |
    | `first_token` | the same over the first token of the option and of space + option |
    | `generation` | none: greedy text, cut at the end of the line, must begin with the option |

    Args:
        model: From `xlens.load`.
        choices: The items.
        rule: One of these.
        by: How `sequence` compares options of unequal length.
        calibrated: Take off each option's score after the prompt without its question: what the
            model would say anyway (a prior of labels; Holtzman et al. 2021). Not for `generation`.
        languages: These of theirs; None: all.
        shots: Demonstrations; this and the next four as in `choice_prompts`.
        seed: Of the demonstrations.
        headers: That items share.
        pool: Items to demonstrate with.
        show_options: Name the options in the prompt.
        token_budget: Most tokens in a pass.
        store: Where scores are kept.
        progress: Show bars.

    Raises:
        ValueError: an option that the rule can never choose or can't tell from another, `by` or
            `calibrated` with a rule that has no use for it, and as `score_choices`.
    """
    if calibrated and rule == "generation":
        raise InputError("calibrated is of rules that score options; generation has no scores.")
    if by != "logprob" and rule != "sequence":
        raise InputError(f"by={by!r} is of the rule 'sequence'; {rule} compares single tokens.")
    tags = choices.languages if languages is None else choices.require(languages)
    # `Choices` are of two languages or more, so one language is asked of all of them.
    asked = choices.select(languages=tags) if len(tags) > 1 else choices
    if rule == "prefix_sum" or rule == "first_token":
        check_labels(model, asked, rule=rule, languages=tags)
    shown = demonstrations(asked, pool or asked, shots, seed, headers, show_options)
    how: dict[str, Any] = {"shown": shown, "pool": pool or asked, "show_options": show_options}
    run: dict[str, Any] = {"token_budget": token_budget, "store": store, "progress": progress}
    if rule == "generation":
        said, provenance = _written(model, asked, tags, how, run)
        tie = np.zeros(len(said), bool)
    else:
        values, provenance = _scored(model, asked, tags, rule, by, how, run)
        if calibrated:
            values = values - _scored(model, _bare(asked), tags, rule, by, how, run)[0]
        # Items with fewer options have NaN at the end, which equals nothing.
        best = np.nanmax(values, axis=1, keepdims=True)
        said, tie = (values == best).argmax(axis=1), (values == best).sum(axis=1) > 1
    rows = [(id, tag) for tag in tags for id in asked.ids]
    golds, paragraphs = asked.gold, asked.paragraphs
    gold = np.array([golds[id] for id, _ in rows])
    table = pd.DataFrame(rows, columns=["id", "language"]).assign(
        paragraph=[paragraphs[id] for id, _ in rows],
        gold=gold,
        said=said,
        value=(said == gold).astype(float),
        tie=tie,
    )
    table = table.assign(**headed(shown, table))
    items = {tag: asked.items(tag) for tag in tags}
    told: dict[str, Any] = {**asked_how(choices, pool, shown, seed, show_options)}
    told |= {"rule": rule, "by": by, "calibrated": calibrated}
    first = provenance["first_prompt"]
    # Of that prompt: where options aren't in it, their numbers alone would tell its reader nothing.
    told["first_options"] = list(items[first["language"]][first["id"]].options)
    return ChoiceAnswers(
        provenance=analysed(provenance, "answers", told),
        table=table,
        rule=rule,
        chance={
            tag: float(np.mean([1 / len(item.options) for item in own.values()]))
            for tag, own in items.items()
        },
    )


@typed
def check_labels(
    model: HookedModel,
    choices: Choices,
    *,
    rule: Literal["prefix_sum", "first_token"],
    languages: Sequence[str] | None = None,
) -> None:
    """See that a rule over single tokens can choose every option, and tells options apart.

    Args:
        model: Whose tokens they are.
        choices: The items.
        rule: The rule.
        languages: These of theirs; None: all.

    Raises:
        ValueError: an option that no token begins; two options of an item that the same tokens
            begin; says which.
    """
    vocab, sets = model.vocab, dict[str, frozenset[int]]()
    for tag in choices.languages if languages is None else languages:
        for id, item in choices.items(tag).items():
            found: dict[frozenset[int], str] = {}
            for option in item.options:
                if option not in sets:
                    sets[option] = frozenset(tokens_of(model, vocab, option, _SETS[rule]))
                own = sets[option]
                if not own:
                    raise InputError(
                        f"Item {id!r} ({tag}): no token of {model.name} begins {option!r}, so that "
                        f"the rule {rule} can never choose it. Use rule='sequence', or another "
                        "word."
                    )
                if own in found:
                    raise InputError(
                        f"Item {id!r} ({tag}): the same tokens of {model.name} begin "
                        f"{found[own]!r} and {option!r}, so that the rule {rule} can't tell them "
                        "apart. Use rule='sequence', or other words."
                    )
                found[own] = option


def _asked(
    choices: Choices, tags: Sequence[str], how: Mapping[str, Any]
) -> tuple[list[Prompt], list[tuple[str, ...]]]:
    prompts: list[Prompt] = []
    options: list[tuple[str, ...]] = []
    for tag in tags:
        mine, own = language_prompts(
            choices, how["pool"], tag, how["shown"], how["show_options"], None
        )
        prompts += mine
        options += own
    return prompts, options


def _bare(choices: Choices) -> Choices:
    """The items without what is asked: the mark alone."""
    marks = choices.frame["mark"].where(choices.frame["mark"] != "", "…")
    return Choices(choices.frame.assign(question=marks, context="", mark=""), choices.source)


def _scored(
    model: HookedModel,
    choices: Choices,
    tags: Sequence[str],
    rule: str,
    by: By,
    how: Mapping[str, Any],
    run: Mapping[str, Any],
) -> tuple[Float[np.ndarray, "prompt option"], dict[str, Any]]:
    """A score for every option; NaN after an item's last."""
    prompts, options = _asked(choices, tags, how)
    if rule == "sequence":
        scores = score(model, Prompts(prompts), options, **run)
        table = scores.table.assign(score=compared(scores.table, by))
        wide = table.pivot(index=["language", "id"], columns="candidate", values="score")
        # As prompts were made: pivot sorts by itself.
        order = pd.MultiIndex.from_tuples([(tag, id) for tag in tags for id in choices.ids])
        return wide.sort_index(axis=1).loc[order].to_numpy(float), dict(scores.provenance)
    states = harvest(model, Prompts(prompts), layers=-1, slots="last", **run)
    last, vocab = states.slot("last").values[0], model.vocab
    sets = {
        text: torch.tensor(tokens_of(model, vocab, text.strip(), _SETS[rule]))
        for text in {option for own in options for option in own}
    }
    out = np.full((len(prompts), max(map(len, options))), np.nan)
    for start in range(0, len(prompts), _CHUNK):
        chunk = last[start : start + _CHUNK].to(model.device)
        logs = model.readout.logits(chunk).float().log_softmax(-1).cpu()
        for row, own in enumerate(options[start : start + _CHUNK]):
            for n, text in enumerate(own):
                # The sum of the tokens' probabilities, as a logarithm.
                out[start + row, n] = float(logs[row, sets[text]].logsumexp(0))
    return out, dict(states.provenance)


def _written(
    model: HookedModel,
    choices: Choices,
    tags: Sequence[str],
    how: Mapping[str, Any],
    run: Mapping[str, Any],
) -> tuple[np.ndarray, dict[str, Any]]:
    """The option that each answer begins with, the longest where several do; else -1."""
    prompts, options = _asked(choices, tags, how)
    longest = room_for({text for own in options for text in own}, model.tokenizer)
    made = generate(model, Prompts(prompts), max_new_tokens=longest, stop="\n", **run)
    said: list[int] = []
    for text, own in zip(made.table["text"], options, strict=True):
        line = folded(str(text)).strip()
        fitting = [n for n, option in enumerate(own) if line.startswith(folded(option).strip())]
        # `New York City` begins with `New York`: the longer one is meant.
        said.append(max(fitting, key=lambda n: len(own[n]), default=NOTHING))
    return np.array(said), dict(made.provenance)
