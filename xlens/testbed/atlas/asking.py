"""Questions to a trained model, and whether its answers are right."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from xlens.engine import generate, room_for
from xlens.languages import endonym
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.stats import generator
from xlens.testbed.atlas.corpus import Reading, readings
from xlens.testbed.atlas.manifest import Manifest
from xlens.testbed.atlas.wordings import fact_wording, pair_wordings
from xlens.testbed.atlas.world import HIDEABLE, LANGUAGES, PIVOT, World

_ROOM = 12  # tokens of an answer, or more where right ones are longer


def ask_facts(
    model: HookedModel, manifest: Manifest, *, wording: str = "statement", progress: bool = False
) -> pd.DataFrame:
    """Greedy answers about every fact in every language.

    Args:
        model: Of the atlas.
        manifest: Its ground truth.
        wording: Name of a wording; `label-turned` is the one that the text never uses.
        progress: Show a bar.

    Returns:
        `manifest.facts` with `answer` and `correct` (exact match).
    """
    table = manifest.facts.copy()
    prompts: list[Prompt] = []
    stops: list[str | tuple[str, ...]] = []
    for row in table.itertuples():
        fact: Any = row
        said = fact_wording(fact.relation, fact.language, wording)
        text = said.before.replace("{s}", fact.subject_text)
        prompts.append(Prompt(text, fact.language, fact.fact))
        stops.append(said.after)
    return _with_answers(model, table, prompts, stops, table.object_text, progress)


def ask_pairs(
    model: HookedModel,
    table: pd.DataFrame,
    *,
    wording: str = "pair-0",
    progress: bool = False,
) -> pd.DataFrame:
    """Greedy translations of the rows of `manifest.pairs`: the rows with `answer` and `correct`.

    `pair-3` to `pair-5` are wordings that the text never uses.
    """
    said = next(w for w in pair_wordings() if w.name == wording)
    names = {language: endonym(language) for language in LANGUAGES}
    prompts: list[Prompt] = []
    for row in table.itertuples():
        pair: Any = row
        text = said.before.replace("{A}", names[pair.source]).replace("{B}", names[pair.target])
        id = f"{pair.word}>{pair.target}"
        prompts.append(Prompt(text.replace("{a}", pair.source_text), pair.source, id))
    stops = [('"', " = ", "\n")] * len(prompts)  # whatever may follow a name in any wording
    return _with_answers(model, table.copy(), prompts, stops, table.target_text, progress)


def ask_readings(
    model: HookedModel, made: Sequence[Reading], language: str, *, progress: bool = False
) -> pd.DataFrame:
    """Greedy answers to readings with questions in `language`.

    Returns:
        One row each: `language subject answer gold correct kind`; `kind` is `gold`, `context` (the
        right object in the context's language), `rival` (another object of the context), `recall`
        (what is true) or `other`.
    """
    prompts = [Prompt(one.prompt, language, str(i)) for i, one in enumerate(made)]
    golds, subjects = zip(*((one.answer, one.subject) for one in made), strict=True)
    table = pd.DataFrame({"language": language, "subject": subjects, "gold": golds})
    stops = [one.after for one in made]
    table = _with_answers(model, table, prompts, stops, table.gold, progress)
    table["kind"] = [_kind(str(a), one) for a, one in zip(table.answer, made, strict=True)]
    return table


def reading_sets(
    world: World,
    manifest: Manifest,
    *,
    n: int,
    same_language: bool = False,
    several: bool = False,
) -> Mapping[str, list[Reading]]:
    """Readings about held-out territories, by language of the question.

    Args:
        world: Words and facts.
        manifest: Says which territories are held out.
        n: Readings per language.
        same_language: Contexts in the question's language; else in English.
        several: Contexts about three territories; else about one.
    """
    found: dict[str, list[Reading]] = {}
    for number, language in enumerate(LANGUAGES):
        rng = generator(manifest.design.seed, 30, number, same_language, several)
        context = language if same_language else PIVOT
        found[language] = readings(
            world, manifest, context, language, n, rng, several=several, held_out=True
        )
    return found


def hideable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows about relations whose facts may be hidden (all but the codes)."""
    return table[table.relation.isin(HIDEABLE)]


def _kind(answer: str, reading: Reading) -> str:
    if answer == reading.answer:
        return "gold"
    if answer == reading.in_context:
        return "context"
    if answer in reading.rivals:
        return "rival"
    return "recall" if answer == reading.truth else "other"


def _with_answers(
    model: HookedModel,
    table: pd.DataFrame,
    prompts: Sequence[Prompt],
    stops: Sequence[str | tuple[str, ...]],
    gold: "pd.Series[Any]",
    progress: bool,
) -> pd.DataFrame:
    by_prompt = {
        (prompt.id, prompt.language): stop for prompt, stop in zip(prompts, stops, strict=True)
    }
    room = room_for(gold.astype(str), model.tokenizer, least=_ROOM)
    found = generate(
        model, Prompts(prompts), max_new_tokens=room, stop=by_prompt, progress=progress
    )
    table["answer"] = found.table.text.str.strip().to_numpy()
    table["correct"] = table.answer.to_numpy() == gold.to_numpy()
    return table
