"""Rows to train on: a question, the wish to have it translated, and the translation.

As in the released data of arXiv 2405.13816 the instruction follows the text, a row is a question in
one language and the same question in another, and no answer occurs. Loss falls on `completion`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.alignment.instructions import instruction
from xlens.tasks.alignment.questions import Questions
from xlens.tasks.items import content

Direction = Literal["to", "from", "both"]
COLUMNS = ("id", "group", "source", "target", "prompt", "completion")


@dataclass(frozen=True, eq=False)
class TranslationPairs:
    """Questions to translate, in the order in which they are trained on.

    Attributes:
        frame: One row a pair: `id group source target prompt completion`.
        made_by: What made them, for provenance.
    """

    frame: pd.DataFrame
    made_by: dict[str, Any]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def prompts(self) -> list[str]:
        """What is read: no loss falls on it."""
        return self.frame["prompt"].tolist()

    @property
    def completions(self) -> list[str]:
        """What is learned."""
        return self.frame["completion"].tolist()

    def digest(self) -> str:
        """Of every row, in its order."""
        return content(self.frame)

    @typed
    def shuffled(self, *, seed: int = 0) -> Self:
        """The same prompts and the same completions, but none with its own: the control.

        Within each direction completions move on by one question in an order drawn from the seed,
        so that compute, texts, lengths and languages are those of the pairs, and only what goes
        with what is another.

        Raises:
            ValueError: a direction with one question only.
        """
        moved = self.frame["completion"].copy()
        for (source, target), mine in self.frame.groupby(["source", "target"], sort=False):
            if mine["completion"].nunique() < 2:
                raise DataError(
                    f"{source} to {target} has one translation only ({len(mine)} pairs): nothing "
                    "to exchange it with. Train on more questions, or leave the control out."
                )
            # Groups stand together, so that moving by the largest one's size leaves each.
            order = sorted(
                mine.index,
                key=lambda at: (
                    seeded_rank(str(self.frame.at[at, "group"]), seed=seed),
                    seeded_rank(str(self.frame.at[at, "id"]), seed=seed),
                ),
            )
            largest = int(mine["group"].value_counts().max())
            # A group that fills more than half can't be left by any step:
            # then only the question is another.
            step = largest if largest <= len(order) // 2 else 1
            for at, other in zip(order, order[step:] + order[:step], strict=True):
                moved[at] = self.frame.at[other, "completion"]
        made_by = {**self.made_by, "shuffled": seed}
        return type(self)(self.frame.assign(completion=moved), made_by)

    def lengths(self, tokenizer: Any) -> pd.DataFrame:
        """Tokens by direction: `source target n prompt completion longest same`.

        `prompt` and `completion` are means, `longest` the longest row, and `same` the share of
        pairs whose two sides are one string, which teach nothing.
        """
        rows: list[dict[str, Any]] = []
        for (source, target), mine in self.frame.groupby(["source", "target"], sort=False):
            sides = [
                [len(ids) for ids in tokenizer(mine[side].tolist())["input_ids"]]
                for side in ("prompt", "completion")
            ]
            whole = [sum(pair) for pair in zip(*sides, strict=True)]
            same = [
                p.startswith(c + "\n")
                for p, c in zip(mine["prompt"], mine["completion"], strict=True)
            ]
            rows.append(
                {
                    "source": source,
                    "target": target,
                    "n": len(mine),
                    "prompt": sum(sides[0]) / len(mine),
                    "completion": sum(sides[1]) / len(mine),
                    "longest": max(whole),
                    "same": sum(same) / len(mine),
                }
            )
        return pd.DataFrame(rows)


@typed
def translation_pairs(
    questions: Questions,
    sources: Iterable[str],
    target: str = "en",
    *,
    direction: Direction = "to",
    n: int | None = None,
    instruction_in: str = "en",
    templates: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
) -> TranslationPairs:
    """Pairs of a question in two languages, of all sources mixed.

    Args:
        questions: Parallel ones.
        sources: Languages to translate from, one or several ("X/Y => T" in the paper).
        target: Language to translate into; English in the paper, or any other.
        direction: `to` the target as in the paper, `from` it, or `both`.
        n: Pairs of each source and direction, drawn with `seed`; None: all there are.
        instruction_in: In which language is asked: a tag, `source` or `target`.
        templates: Wordings of your own, as in `instruction`.
        names: Of languages, as in `instruction`.
        seed: Of the draw and of the order.

    Raises:
        ValueError: a language that the questions lack, the target among the sources, fewer
            questions than `n`, or what `instruction` refuses.
    """
    tags, goal = questions.require(sources), questions.require([target])[0]
    if goal in tags:
        raise InputError(
            f"{goal} is both source and target: a question is translated into another language. "
            f"Leave it out of the sources {', '.join(tags)}."
        )
    if n is not None:
        questions.check_number(n)
    # The same questions from every source, so that trainings differ by language alone.
    ids = sorted(questions.ids, key=lambda id: seeded_rank(id, seed=seed))[:n]
    groups = questions.groups
    ways = [(tag, goal) for tag in tags if direction != "from"]
    ways += [(goal, tag) for tag in tags if direction != "to"]
    rows: list[tuple[str, ...]] = []
    for source, into in ways:
        ask = instruction(source, into, instruction_in, templates=templates, names=names)
        given, wanted = questions.texts(source), questions.texts(into)
        rows += [(id, groups[id], source, into, f"{given[id]}\n{ask}\n", wanted[id]) for id in ids]
    # Sources mixed: by id and direction, whatever their order was.
    rows.sort(key=lambda row: seeded_rank(row[0], row[2], row[3], seed=seed))
    made_by = {
        "questions": questions.source,
        "sources": list(tags),
        "target": goal,
        "direction": direction,
        "n": len(ids),
        "instruction_in": instruction_in if instruction_in in ("source", "target")
        else standardize(instruction_in),
        "seed": seed,
    }  # fmt: skip
    return TranslationPairs(pd.DataFrame(rows, columns=[*COLUMNS]), made_by)
