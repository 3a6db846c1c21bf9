"""Scores of every option of every item, in every language, in one run."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from xlens.checks import typed
from xlens.engine import Scores, score
from xlens.engine.interventions import Interventions
from xlens.headers import HEADERS, Headers
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.prompts.fewshot import Shown
from xlens.results import analysed
from xlens.store import Store
from xlens.tasks.choices.data import Choices
from xlens.tasks.choices.prompts import demonstrations, language_prompts


@typed
def score_choices(
    model: HookedModel,
    choices: Choices,
    *,
    languages: Iterable[str] | None = None,
    shots: int = 0,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Choices | None = None,
    show_options: bool = False,
    chat: bool = False,
    layers: str | int | Sequence[int] = -1,
    token_budget: int | None = None,
    interventions: Interventions = (),
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> Scores:
    """Log-probability of every option of every item, in every language (arXiv 2505.13141).

    With the right answers in `choices.gold`, this is what consistency is computed from:
    `consistency(option_scores(score_choices(model, choices), choices.gold))`. There, `by=` chooses
    between summed log-probabilities and those per token, byte or character; options differ in
    length.

    Args:
        model: From `xlens.load`.
        choices: The items.
        languages: These of theirs; None: all. The demonstrations don't depend on it.
        shots: Demonstrations; this and the next five as in `choice_prompts`.
        seed: Of the demonstrations.
        headers: That items share.
        pool: Items to demonstrate with.
        show_options: Name the options in the prompt.
        chat: Use the chat template of the model's tokenizer.
        layers: Residual points; -1, the output, by default. This and the rest as in `score`.
        token_budget: Most tokens in a pass.
        interventions: Changes to the stream.
        store: Where scores are kept.
        progress: Show bars.

    Returns:
        One row per item, language, layer and option; `candidate` is the option's number,
        `paragraph` what intervals draw whole (`Choices.paragraphs`), and so is `header`, where
        items share demonstrations.

    Raises:
        ValueError: as `choice_prompts` and `score`.
    """
    tags = choices.languages if languages is None else choices.require(languages)
    shown = demonstrations(choices, pool or choices, shots, seed, headers, show_options)
    prompts: list[Prompt] = []
    candidates: list[tuple[str, ...]] = []
    for tag in tags:
        mine, options = language_prompts(
            choices, pool or choices, tag, shown, show_options, model.tokenizer if chat else None
        )
        prompts += mine
        candidates += options
    scores = score(
        model,
        Prompts(prompts),
        candidates,
        layers=layers,
        token_budget=token_budget,
        interventions=interventions,
        store=store,
        progress=progress,
    )
    return replace(
        scores,
        table=scores.table.assign(
            paragraph=scores.table["id"].map(choices.paragraphs), **headed(shown, scores.table)
        ),
        provenance=analysed(
            scores.provenance,
            "asked",
            {**asked_how(choices, pool, shown, seed, show_options), "chat": chat},
        ),
    )


def asked_how(
    choices: Choices, pool: Choices | None, shown: Shown, seed: int, show_options: bool
) -> dict[str, str | int | bool]:
    """What a result's provenance says about its prompts."""
    return {
        "choices": choices.source,
        "demonstrations": (pool or choices).source,
        **shown.described,
        "seed": seed,
        "show_options": show_options,
    }


def headed(shown: Shown, table: pd.DataFrame) -> dict[str, pd.Series]:
    """A column `header` for a table of items, where these share some."""
    return {"header": table["id"].map(shown.names)} if shown.names else {}
