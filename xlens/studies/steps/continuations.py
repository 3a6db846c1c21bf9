"""What a model says after beginnings of sentences, under a push or none, and whether it is right.

Two judges that know nothing of the push: an identifier of languages, and the model itself, which
says unsteered after whose prompt a text is likely.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from xlens.engine import generate, score
from xlens.engine.interventions import Intervention
from xlens.models import HookedModel
from xlens.prompts import Prompts
from xlens.stats import generator
from xlens.steering import judge_text
from xlens.store import Store
from xlens.tasks.sentences import Sentences, halved

ROOM = 32
"""Tokens of a continuation where nobody says."""
OTHERS = 3
"""Other prompts that a continuation is held against: chance is a quarter."""


def n_others(ids: list[str]) -> int:
    """Prompts that each text is held against, beside its own."""
    return min(OTHERS, len(ids) - 1)


@dataclass(frozen=True)
class Continuations:
    """The second halves that a model says after the first ones.

    Attributes:
        model: From `xlens.load`.
        texts: Cut in half, in every language that is asked.
        room: Most tokens of each.
        seed: Of the prompts that a text is held against.
        store: Where texts and scores are kept.
        progress: Show bars.
    """

    model: HookedModel
    texts: Sentences
    room: int
    seed: int
    store: Store | None
    progress: bool

    @property
    def how(self) -> dict[str, Any]:
        """How everything is run."""
        return {"store": self.store, "progress": self.progress}

    @cached_property
    def halves(self):
        """Each text's two halves, by language."""
        return {tag: halved(self.texts, tag) for tag in self.texts.languages}

    def prompts(self, tag: str, ids: list[str]) -> Prompts:
        """First halves, in the order of the ids."""
        mine = {prompt.id: prompt for prompt in self.halves[tag].prompts}
        return Prompts(mine[id] for id in ids)

    def said(self, tag: str, ids: list[str], edits: list[Intervention]) -> pd.DataFrame:
        """`id text truncated` of every prompt of a language."""
        found = generate(
            self.model,
            self.prompts(tag, ids),
            max_new_tokens=self.room,
            interventions=edits,
            **self.how,
        ).to_frame()
        return pd.DataFrame(
            {
                "id": list(found["id"]),
                "text": [str(text) for text in found["text"]],
                "truncated": found["reason"].eq("length").to_numpy(),
            }
        )

    def judged(self, target: str, ids: list[str], said: pd.DataFrame) -> pd.DataFrame:
        """Texts in many conditions with their language and relevance, all at once."""
        told = [judge_text(text, target) for text in said["text"]]
        table = said.reset_index(drop=True).assign(target=target)
        table = pd.concat([table, pd.DataFrame(told)], axis=1)
        table["relevance"] = self._relevant(target, ids, table)
        table["wrong_language"] = table["relevance"] * (1 - table["forcing"])
        return table

    def _relevant(self, target: str, ids: list[str], said: pd.DataFrame) -> list[float]:
        """Whether each text is likelier after its own prompt than after the others."""
        n = n_others(ids)
        turn = {id: at for at, id in enumerate(ids)}
        # Neighbours in an order of its own: every prompt is as often another's.
        order = generator(self.seed, 11).permutation(len(ids))
        place = {ids[at]: k for k, at in enumerate(order)}
        ring = [ids[at] for at in order]
        others = {
            id: [id, *(ring[(place[id] + step) % len(ids)] for step in range(1, n + 1))]
            for id in turn
        }
        offered: dict[str, dict[str, None]] = {id: {} for id in ids}
        pairs = [(str(id), str(text)) for id, text in zip(said["id"], said["text"], strict=True)]
        for id, text in pairs:
            if text.strip():
                for other in others[id]:
                    offered[other][text] = None
        asked = [id for id in ids if offered[id]]
        total: dict[tuple[str, str], float] = {}
        if asked:
            # After the target's own words: after the prompt that it said them to, whatever a model
            # says is likely.
            texts = [list(offered[id]) for id in asked]
            prompts = self.prompts(target, asked)
            table = score(self.model, prompts, texts, **self.how).table
            columns = (table["id"], table["candidate"], table["logprob"])
            for id, candidate, value in zip(*columns, strict=True):
                total[str(id), list(offered[str(id)])[int(candidate)]] = float(value)
        return [
            float(all(total[id, text] > total[other, text] for other in others[id][1:]))
            if text.strip()
            else 0.0
            for id, text in pairs
        ]
