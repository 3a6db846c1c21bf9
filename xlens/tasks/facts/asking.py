"""Ask a model for facts: what it writes, how probable candidates are, its states meanwhile."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine import Scores, generate, harvest, room_for, score
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import Result, analysed
from xlens.store import Store
from xlens.tasks.choices.text import folded
from xlens.tasks.facts.candidates import Offers
from xlens.tasks.facts.data import Fact, Facts
from xlens.tasks.facts.prompts import Shown, demonstrations, language_prompts
from xlens.tasks.facts.right import TEXTUAL, begins, first_line, is_right

SLOTS = ("subject:last", "last")
"""Where states are compared: at the subject's last token, and where the answer is about to come."""
_SPACE = " "
_LEAST = 8


@dataclass(frozen=True, kw_only=True)
class FactAnswers(Result):
    """What a model answered, and by which rules that is right.

    Attributes:
        table: One row per fact and language: `id language relation subject object answer n_tokens
            reason exact word prefix first_token shown dealt` and, where the facts say so, `group`
            and `frequency`. `object` is the right one that is shown, `shown` whether it stands in
            the prompt. `dealt` is the control of `word`: the share of the answers to the other
            facts of its relation, in this language, that would be right here.
        shots: Demonstrations before each question.
    """

    table: pd.DataFrame
    shots: int

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def ask_facts(
    model: HookedModel,
    facts: Facts,
    *,
    shots: int = 3,
    seed: int = 0,
    pool: Facts | None = None,
    leaks: bool = False,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> FactAnswers:
    """Greedy answers about every fact in every language (arXiv 2505.14824, with stricter rules).

    An answer ends with its line, or with what the template has after the object; it has room for
    the longest right one (10 tokens cut off a third of the Russian objects).

    Args:
        model: From `xlens.load`.
        facts: What is asked.
        shots: This and the next three as in `fact_prompts`.
        seed: Of the demonstrations.
        pool: Facts to demonstrate with.
        leaks: Take demonstrations that give the answer away, too.
        token_budget: Most prompt tokens in a pass.
        store: Where answers are kept.
        progress: Show a bar.

    Raises:
        ValueError: as `fact_prompts` and `generate`.
    """
    shown = demonstrations(facts, shots=shots, seed=seed, pool=pool, leaks=leaks)
    asked = list(_asked(model, facts, pool or facts, shown))
    stops = {(p.id, p.language): _stops(fact) for p, fact, _ in asked}
    made = generate(
        model,
        Prompts([prompt for prompt, _, _ in asked]),
        max_new_tokens=room_of(facts, model.tokenizer),
        stop=stops,
        token_budget=token_budget,
        store=store,
        progress=progress,
    )
    rows: list[dict[str, Any]] = []
    for (prompt, fact, firsts), written in zip(asked, made.table.to_dict("records"), strict=True):
        key = (prompt.id, prompt.language)
        answer, tokens = str(written["text"]).strip(), written["tokens"]
        rows.append(
            {
                "id": prompt.id,
                "language": prompt.language,
                "relation": fact.relation,
                "subject": fact.subject,
                "object": fact.objects[0],
                "answer": answer,
                "n_tokens": written["n_tokens"],
                "reason": written["reason"],
                **{rule: is_right(answer, fact.objects, rule) for rule in TEXTUAL},
                "first_token": bool(tokens) and tokens[0] in firsts,
                "shown": bool(prompt.meta["shown"]),
                **({"group": facts.groups[key]} if facts.groups else {}),
                **({"frequency": facts.frequencies.get(key, -1)} if facts.frequencies else {}),
            }
        )
    table = pd.DataFrame(rows)
    table["dealt"] = _dealt(table, facts)
    how = {"facts": facts.source, "shots": shots, "seed": seed, "leaks": leaks}
    known = analysed(made.provenance, "asked", how)
    return FactAnswers(provenance=known, table=table, shots=shots)


@typed
def rank_facts(
    model: HookedModel,
    facts: Facts,
    offered: Offers,
    *,
    shots: int = 3,
    seed: int = 0,
    pool: Facts | None = None,
    leaks: bool = False,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> Scores:
    """Log-probability of each candidate of every fact that has some, after the same prompts.

    Args:
        model: From `xlens.load`.
        facts: What is asked.
        offered: From `offers`.
        shots: This and the next three as in `fact_prompts`.
        seed: Of the demonstrations.
        pool: Facts to demonstrate with; those of the candidates.
        leaks: Take demonstrations that give the answer away, too.
        token_budget: Most tokens in a pass.
        store: Where scores are kept.
        progress: Show bars.

    Returns:
        One row per fact, language and candidate; for `option_scores(scores, offered.gold)`.

    Raises:
        ValueError: as `fact_prompts` and `score`; no fact has candidates.
    """
    if not offered.ids:
        raise InputError(
            "No fact has a candidate beside its own object: each relation has one object only. "
            "Ask without candidates (n_candidates=0)."
        )
    every = pool or facts
    shown = demonstrations(facts, shots=shots, seed=seed, pool=pool, leaks=leaks)
    prompts: list[Prompt] = []
    texts: list[tuple[str, ...]] = []
    for prompt, fact, _ in _asked(model, facts, every, shown):
        if prompt.id not in offered.ids:
            continue
        before = fact.asked.gap if not prompt.text.endswith(_SPACE) else ""
        of = every.facts(prompt.language)
        own = [fact if id == prompt.id else of[id] for id in offered.ids[prompt.id]]
        prompts.append(prompt)
        texts.append(tuple(before + candidate.objects[0] for candidate in own))
    scores = score(
        model,
        Prompts(prompts),
        texts,
        token_budget=token_budget,
        store=store,
        progress=progress,
    )
    how = {"facts": facts.source, "shots": shots, "seed": seed, "leaks": leaks}
    return replace(scores, provenance=analysed(scores.provenance, "asked", how))


@typed
def fact_states(
    model: HookedModel,
    facts: Facts,
    languages: Iterable[str],
    *,
    shots: int = 3,
    seed: int = 0,
    pool: Facts | None = None,
    leaks: bool = False,
    token_budget: int | None = None,
    progress: bool = True,
) -> Iterator[Activations]:
    """States at `SLOTS` of the same prompts at every layer, one language after the other.

    Nothing is kept on disk: of 1,200 facts a model of 33 layers and width 4096 gives 1.3 GB in each
    language, of which only cosines are wanted.

    Args:
        model: From `xlens.load`.
        facts: What is asked.
        languages: In which, in this order.
        shots: This and the next three as in `fact_prompts`.
        seed: Of the demonstrations.
        pool: Facts to demonstrate with.
        leaks: Take demonstrations that give the answer away, too.
        token_budget: Most tokens in a pass.
        progress: Show bars.

    Raises:
        ValueError: as `fact_prompts` and `harvest`.
    """
    tags = facts.require(languages)
    shown = demonstrations(facts, shots=shots, seed=seed, pool=pool, leaks=leaks)
    for tag in tags:
        prompts = _ended(model, facts, pool or facts, shown, tag)
        yield harvest(
            model, Prompts(prompts), slots=SLOTS, token_budget=token_budget, progress=progress
        )


def room_of(facts: Facts, tokenizer: Any) -> int:
    """A limit on new tokens that cuts off no right object."""
    every = (fact for tag in facts.languages for fact in facts.facts(tag).values())
    return room_for((gold for fact in every for gold in fact.objects), tokenizer, least=_LEAST)


def _asked(
    model: HookedModel, facts: Facts, pool: Facts, shown: Shown
) -> Iterator[tuple[Prompt, Fact, frozenset[int]]]:
    """Every prompt, its fact, and the first tokens of right objects."""
    for tag in facts.languages:
        own = facts.facts(tag)
        prompts = _ended(model, facts, pool, shown, tag)
        firsts = _firsts(model, own, tag, _ends(model, own, tag))
        for prompt in prompts:
            yield prompt, own[prompt.id], firsts[prompt.id]


def _ended(model: HookedModel, facts: Facts, pool: Facts, shown: Shown, tag: str) -> list[Prompt]:
    """The prompts of a language as the model's tokenizer wants them."""
    ends = _ends(model, facts.facts(tag), tag)
    prompts = language_prompts(facts, pool, tag, shown)
    return [replace(prompt, text=prompt.text + ends[prompt.id]) for prompt in prompts]


def _ends(model: HookedModel, facts: Mapping[str, Fact], language: str) -> dict[str, str]:
    """What follows each question before its object is said.

    Most tokenizers write the space before a word into its token, so a prompt ends without one; to
    some a space is a token of its own (the atlas's), and then it is the prompt's last.
    """
    parted = _parted(model, facts, language)
    return {id: fact.asked.gap if parted else "" for id, fact in facts.items()}


def _parted(model: HookedModel, facts: Mapping[str, Fact], language: str) -> bool:
    """Whether the space before an object is a token of its own."""
    spaced = [fact for fact in facts.values() if fact.asked.gap]
    if not spaced:
        return False
    ends = [
        Prompt.from_parts(
            [fact.asked.text + fact.asked.gap, ("object", fact.objects[0])],
            language=language,
            id=str(n),
        )
        for n, fact in enumerate(spaced[:20])
    ]
    apart = [
        tokens.offsets[tokens.spans["object"][0]][0] >= prompt.spans["object"][0]
        for prompt, tokens in zip(ends, model.tokenize(ends), strict=True)
    ]
    # One joined token is enough: a prompt that ended in a space would never be followed by it.
    return all(apart)


def _firsts(
    model: HookedModel, facts: Mapping[str, Fact], language: str, ends: Mapping[str, str]
) -> dict[str, frozenset[int]]:
    """The first tokens of right objects after each question; none where they join with its end."""
    texts: list[Prompt] = []
    for id, fact in facts.items():
        question = fact.asked.text + ends[id]
        rest = "" if ends[id] else fact.asked.gap
        said = [question, *(question + rest + gold for gold in fact.objects)]
        texts += [Prompt(text, language, id) for text in said]
    ids: dict[str, list[tuple[int, ...]]] = {}
    for prompt, tokens in zip(texts, model.tokenize(texts), strict=True):
        ids.setdefault(prompt.id, []).append(tokens.ids)
    found: dict[str, frozenset[int]] = {}
    for id, (alone, *filled) in ids.items():
        n = len(alone)
        # Tokenised behind the question, as the model would go
        # on: a word alone may be cut otherwise.
        found[id] = frozenset(own[n] for own in filled if len(own) > n and own[:n] == alone)
    return found


def _stops(fact: Fact) -> tuple[str, ...]:
    """What ends an answer: its line, and the template's next character unless an object has it."""
    after = fact.asked.after[:1]
    # "U.S.A." must not end at its first full stop.
    own = after and not any(after in gold for gold in fact.objects)
    return ("\n", after) if own else ("\n",)


def _dealt(table: pd.DataFrame, facts: Facts) -> list[float]:
    """Of each fact, the share of the other answers of its relation that would be right for it."""
    lines = table["answer"].map(lambda text: folded(first_line(str(text))))
    found = pd.Series(float("nan"), index=table.index)
    for (tag, _), rows in table.groupby(["language", "relation"], sort=False):
        own = facts.facts(str(tag))
        counts = Counter(lines[rows.index].to_list())
        known: dict[tuple[str, ...], int] = {}
        for at, id in zip(rows.index, rows["id"], strict=True):
            golds = own[id].objects
            if golds not in known:
                # `startswith` with several beginnings at once is quick,
                # and `begins` asks for ends of words.
                wanted = tuple(map(folded, golds))
                said = (text for text in counts if text.startswith(wanted))
                known[golds] = sum(
                    counts[text] for text in said if any(begins(text, gold) for gold in wanted)
                )
            if len(rows) > 1:
                # Its own answer is among all that were counted.
                found[at] = (known[golds] - bool(table.at[at, "word"])) / (len(rows) - 1)
    return found.tolist()
