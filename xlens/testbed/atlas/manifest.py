"""The design of the corpus, decided before a word of it is written: the ground truth.

Every fact belongs to one set:

- `core`: in English from rarely to often (Zipf-like), in every other language a dose drawn
  independently of it, so that dose and fact are not confounded;
- `transfer`: often in English, never in the languages that it is hidden from;
- `control`: never, in any language;
- `anchor`: the codes, the same string in every language, often in all.

Relations of one territory are spread over the sets, so that the text about it in one language
overlaps with the text about it in another: what is shared lets names of one territory align.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd

from xlens.errors import InputError
from xlens.stats import generator
from xlens.testbed.atlas.world import HIDEABLE, LANGUAGES, PIVOT, World

SETS = ("core", "transfer", "control", "anchor")


@dataclass(frozen=True)
class Design:
    """What the corpus is made from.

    Attributes:
        seed: Of every choice.
        scale: Factor on the number of fact and translation documents.
        control: Share of facts that never appear.
        transfer: Share of facts that are hidden from some languages.
        hidden_from: From how many languages such a fact is hidden.
        zipf: English occurrences of the most frequent core fact of a relation, the exponent by
            rank, the least.
        doses: Occurrences of a core fact in another language, and how probable each dose is.
        transfer_doses: Occurrences of a transfer fact in English and where it is not hidden.
        anchor_doses: Occurrences of an anchor fact in English and elsewhere.
        pair_dose: Documents that translate a word from one language to another; double with
            English.
        chains: Documents that name a word in several languages, per word.
        chain_length: In how many languages, at least and at most.
        held_out_pairs: Share of words without a translation between two languages, English aside.
        lines: Share of translations that stand in documents of several lines.
        reading: Documents of reading comprehension in one language, about several territories, per
            language.
        reading_subjects_out: Share of territories that no context ever mentions.
        crossed_one: Documents of reading comprehension for the twin, per language of the question,
            with contexts about one territory.
        crossed_several: The same about several.
        rehearsal: Documents of the base text in the twin's, for each of those.
    """

    seed: int = 0
    scale: float = 1.0
    control: float = 0.12
    transfer: float = 0.25
    hidden_from: int = 3
    zipf: tuple[float, float, int] = (500.0, 0.7, 8)
    doses: tuple[tuple[int, float], ...] = field(
        default=(
            (1, 0.06),
            (2, 0.06),
            (4, 0.07),
            (8, 0.08),
            (16, 0.09),
            (32, 0.12),
            (64, 0.26),
            (128, 0.18),
            (256, 0.08),
        )
    )
    transfer_doses: tuple[int, int] = (256, 96)
    anchor_doses: tuple[int, int] = (64, 48)
    pair_dose: int = 2
    chains: int = 96
    chain_length: tuple[int, int] = (3, 5)
    held_out_pairs: float = 0.05
    lines: float = 0.2
    reading: int = 4500
    reading_subjects_out: float = 0.2
    crossed_one: int = 2200
    crossed_several: int = 300
    rehearsal: float = 2.0


@dataclass(frozen=True)
class Manifest:
    """The ground truth of a corpus.

    Attributes:
        design: What it was made from.
        facts: One row per fact and language: `fact relation subject object language set hidden
            count subject_text object_text english_text identical`. `count` is the number of
            documents that state it, `hidden` says that a transfer fact is kept from this language,
            `identical` that the object is the same string as in another language in which the fact
            appears (for facts that appear nowhere: as in English).
        pairs: One row per word and ordered pair of languages: `word kind source target asked
            chained held_out source_text target_text identical`. `asked` is the number of
            translations in the text, `chained` that of chains in which the target's name follows
            the source's.
        chains: One row per document that names a word in several languages: `word languages`
            (joined by `|`, in the order named).
        reading_subjects: One row per territory: `subject held_out`; no context of the corpus
            mentions those held out.
    """

    design: Design
    facts: pd.DataFrame
    pairs: pd.DataFrame
    chains: pd.DataFrame
    reading_subjects: pd.DataFrame


def make_manifest(world: World, design: Design | None = None) -> Manifest:
    """Decide how often everything is said.

    Raises:
        ValueError: a scale that is not positive.
    """
    design = design or Design()
    if not design.scale > 0:
        raise InputError(f"scale is {design.scale}; accepted is a number above 0, 1 for the atlas.")
    held_out = _held_out(world, design)
    chains = _chains(world, design, held_out)
    pairs = _pairs(world, design, held_out, chains)
    return Manifest(design, _facts(world, design), pairs, chains, _subjects(world, design))


def withheld(manifest: Manifest) -> Manifest:
    """What remains where the pivot states no transfer fact: these are hidden from it, too."""
    facts = manifest.facts
    gone = (facts["set"] == "transfer") & (facts["language"] == PIVOT)
    counts = facts["count"].mask(gone, 0)
    return replace(manifest, facts=facts.assign(hidden=facts["hidden"] | gone, count=counts))


def scaled(scale: float, **changes: Any) -> Design:
    """A design with fewer or more documents of every kind, for tests and trials."""
    base = Design(**changes)
    return replace(
        base,
        scale=scale,
        reading=max(1, round(base.reading * scale)),
        crossed_one=max(1, round(base.crossed_one * scale)),
        crossed_several=max(1, round(base.crossed_several * scale)),
    )


def _facts(world: World, design: Design) -> pd.DataFrame:
    rng = generator(design.seed, 1)
    others = [language for language in LANGUAGES if language != PIVOT]
    # Each combination of hiding languages equally often: no language is hidden from more facts.
    hiding = list(combinations(others, design.hidden_from))
    rows: list[dict[str, Any]] = []
    n_hidden = 0
    for relation in dict.fromkeys(fact.relation for fact in world.facts):
        facts = [fact for fact in world.facts if fact.relation == relation]
        order = rng.permutation(len(facts))
        n_control = round(design.control * len(facts)) if relation in HIDEABLE else 0
        n_transfer = round(design.transfer * len(facts)) if relation in HIDEABLE else 0
        deals = rng.permutation(len(hiding))
        for place, index in enumerate(order):
            fact = facts[index]
            hidden: tuple[str, ...] = ()
            if relation not in HIDEABLE:
                kind, counts = "anchor", _flat(design.anchor_doses, others)
            elif place < n_control:
                kind, counts = "control", dict.fromkeys(LANGUAGES, 0)
            elif place < n_control + n_transfer:
                kind, counts = "transfer", _flat(design.transfer_doses, others)
                hidden = hiding[deals[n_hidden % len(hiding)]]
                n_hidden += 1
            else:
                kind = "core"
                counts = _core(place - n_control - n_transfer + 1, design, others, rng)
            counts = {
                language: 0
                if language in hidden or not count
                else max(1, round(count * design.scale))
                for language, count in counts.items()
            }
            names = world.words[fact.object]
            seen = [language for language in LANGUAGES if counts[language]] or [PIVOT]
            for language in LANGUAGES:
                rows.append(
                    {
                        "fact": fact.id,
                        "relation": relation,
                        "subject": fact.subject,
                        "object": fact.object,
                        "language": language,
                        "set": kind,
                        "hidden": language in hidden,
                        "count": counts[language],
                        "subject_text": world.text(fact.subject, language),
                        "object_text": names[language],
                        "english_text": names[PIVOT],
                        "identical": any(
                            names[other] == names[language] for other in seen if other != language
                        ),
                    }
                )
    return pd.DataFrame(rows)


def _flat(doses: tuple[int, int], others: Sequence[str]) -> dict[str, int]:
    return {PIVOT: doses[0], **dict.fromkeys(others, doses[1])}


def _core(
    rank: int, design: Design, others: Sequence[str], rng: np.random.Generator
) -> dict[str, int]:
    top, exponent, least = design.zipf
    doses, chances = zip(*design.doses, strict=True)
    drawn = rng.choice(doses, size=len(others), p=np.array(chances) / sum(chances))
    english = max(least, round(top / rank**exponent))
    return {PIVOT: english, **{k: int(v) for k, v in zip(others, drawn, strict=True)}}


def _held_out(world: World, design: Design) -> dict[frozenset[str], frozenset[str]]:
    """The words of each pair of languages that are never seen in both; both directions together."""
    rng = generator(design.seed, 2)
    words = np.array(world.translatable())
    found: dict[frozenset[str], frozenset[str]] = {}
    for pair in combinations(LANGUAGES, 2):
        drawn = rng.random(len(words)) < design.held_out_pairs
        found[frozenset(pair)] = frozenset() if PIVOT in pair else frozenset(words[drawn].tolist())
    return found


def _chains(
    world: World, design: Design, held_out: dict[frozenset[str], frozenset[str]]
) -> pd.DataFrame:
    rng = generator(design.seed, 4)
    least, most = design.chain_length
    rows: list[tuple[str, str]] = []
    for word in world.translatable():
        for _ in range(max(1, round(design.chains * design.scale))):
            chosen: list[str] = []
            for place in rng.permutation(len(LANGUAGES)):
                language = LANGUAGES[place]
                if all(word not in held_out[frozenset((language, other))] for other in chosen):
                    chosen.append(language)
            rows.append((word, "|".join(chosen[: rng.integers(least, most + 1)])))
    return pd.DataFrame(rows, columns=["word", "languages"])


def _pairs(
    world: World,
    design: Design,
    held_out: dict[frozenset[str], frozenset[str]],
    chains: pd.DataFrame,
) -> pd.DataFrame:
    words = world.translatable()
    dose = max(1, round(design.pair_dose * design.scale)) if design.pair_dose else 0
    chained = Counter(
        (word, *pair)
        for word, languages in zip(chains.word, chains.languages, strict=True)
        for pair in combinations(languages.split("|"), 2)
    )
    tables: list[pd.DataFrame] = []
    for source, target in permutations(LANGUAGES, 2):
        out = [word in held_out[frozenset((source, target))] for word in words]
        given = [world.text(word, source) for word in words]
        asked = [world.text(word, target) for word in words]
        table = {
            "word": words,
            "kind": [word.split("/", 1)[0] for word in words],
            "source": source,
            "target": target,
            "asked": np.where(out, 0, dose * (2 if PIVOT in (source, target) else 1)),
            "chained": [chained[word, source, target] for word in words],
            "held_out": out,
            "source_text": given,
            "target_text": asked,
            "identical": [a == b for a, b in zip(given, asked, strict=True)],
        }
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def _subjects(world: World, design: Design) -> pd.DataFrame:
    rng = generator(design.seed, 3)
    subjects = sorted({fact.subject for fact in world.facts})
    out = set(rng.permutation(len(subjects))[: round(design.reading_subjects_out * len(subjects))])
    return pd.DataFrame({"subject": subjects, "held_out": [i in out for i in range(len(subjects))]})
