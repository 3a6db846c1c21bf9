"""Does the word that is read inside do any work? What is read is exchanged for another item's.

An exchange reflects the state along one direction, from what an item has of it to what its donor
has (`xlens.lens.directions`), and what is measured is by how much the log-odds of the donor's
against the item's own word in the target language grow at the output. All exchanges of a prompt
change the state by the same length, random directions among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine import harvest
from xlens.engine.interventions import Interventions, add
from xlens.engine.variants import harvest_variants
from xlens.errors import InputError
from xlens.lens.directions import Rows, Words, word_directions
from xlens.lens.lenses import LOGIT, Lens
from xlens.lens.logit_lens import one_task, through
from xlens.lens.targets import TargetSets
from xlens.models import HookedModel, Readout
from xlens.prompts import Prompt, Prompts, TooFewItems
from xlens.results import Result, analysed
from xlens.stats import generator
from xlens.store import Store

WAYS = ("exchange", "ablation")
PLACES = ("last", "after")
"""The last position; every position after the prompt's own word."""
FEWEST_ITEMS = 8
_AFTER = "after_word"


@dataclass(frozen=True, kw_only=True)
class CausalResult(Result):
    """What exchanges and ablations did, prompt by prompt.

    Attributes:
        rows: `id donor layer way where what effect size`: by how much (nats) the log-odds of the
            donor's word against the item's own in the target language grew at the output. `way` is
            `exchange` or `ablation`, `where` `last` or `after`; `what` is `concept`, `pivot`,
            `other` (another language's remainder) or `random`; `size` is how far the state moved,
            0 where nothing was there to be moved.
        plain: `id donor layer readable output`: without any change: the log-odds of the item's own
            word against the donor's, in the pivot language as the lens reads it at a layer, and in
            the target language at the output.
        source: Language of the word shown.
        target: Language asked for.
        pivot: The language suspected inside.
        others: Further languages of which words have a concept in common.
        lens: Through which words were read.
        headers: Of demonstrations, by item, where prompts share some.
    """

    rows: pd.DataFrame
    plain: pd.DataFrame
    n_layers: int
    source: str
    target: str
    pivot: str
    others: tuple[str, ...]
    lens: str
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def to_frame(self) -> pd.DataFrame:
        """`rows`."""
        return self.rows


@typed
def causal_test(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
    targets: TargetSets,
    *,
    pivot: str = "en",
    lens: Lens = LOGIT,
    layers: str | int | Sequence[int] = "all",
    n_donors: int = 2,
    seed: int = 0,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> CausalResult:
    """Exchange what is read of a word with what is read of another item's, and see what is said.

    Args:
        model: From `xlens.load`.
        prompts: All with the same meta `source`, `target` and `task`; with a span `word`, states
            after it are changed as well.
        targets: Words in the target language, the pivot, the source and two other languages or
            more, with a set in each: see `for_causal_test`.
        pivot: The language suspected inside.
        lens: Through which words are read.
        layers: Residual points below the last; "all" is every one that the lens has.
        n_donors: Donors of each item, by seeded derangements.
        seed: Of donors, other languages and random directions.
        token_budget: Most tokens in a pass.
        store: Keeps states: a killed run goes on where it was.
        progress: Show bars.

    Raises:
        TooFewItems: fewer than eight items with words in all languages.
        ValueError: fewer than two languages besides source, target and pivot; no donors; a lens of
            another model; layers that the lens lacks, or the last.
    """
    if n_donors < 1:
        raise InputError(f"n_donors is {n_donors}; at least 1 is needed.")
    points = _points(model, lens, layers)
    asked = list(prompts if isinstance(prompts, Prompts) else Prompts(prompts))
    targets = for_causal_test(targets, [p.id for p in asked])
    asked = [p for p in asked if p.id in targets.sets.index]
    states = harvest(
        model, asked, layers="all", token_budget=token_budget, store=store, progress=progress
    )
    task = one_task(states)
    languages = _columns(targets, pivot, task)
    design = _Design.of(asked, targets, languages, n_donors, seed)
    directions = word_directions(model, lens, points, targets)
    kept = states.slot("last").values.float()
    moves = {
        point: _moves(design, directions[n], kept[states.layer_index(point)])
        for n, point in enumerate(points)
    }
    texts, has_after = _texts(asked, design)
    said: dict[str, Activations] = {}
    for where in PLACES if has_after else PLACES[:1]:
        # Each by itself: where nothing but last positions change, all that is before runs once.
        said |= harvest_variants(
            model,
            texts,
            {"": (), **_variants(moves, where)},
            layers=model.n_layers,
            token_budget=token_budget,
            store=store,
            progress=progress,
        )
    own, theirs = design.sets(targets, task["target"])
    before = _log_odds(model.readout, said[""], own, theirs)
    rows = [
        design.frame().assign(
            layer=point,
            way=way,
            where=where,
            what=what,
            effect=_log_odds(model.readout, said[name], own, theirs) - before,
            size=moves[point][way, what].norm(dim=-1).numpy(),
        )
        for name in filter(None, said)
        for point, way, where, what in [_parsed(name)]
    ]
    how = {"n_donors": n_donors, "seed": seed, **through(lens)}
    return CausalResult(
        provenance=analysed(states.provenance, "causal", how),
        rows=pd.concat(rows, ignore_index=True),
        plain=_plain(model, states, lens, points, design, targets, pivot, -before),
        n_layers=model.n_layers,
        source=task["source"],
        target=task["target"],
        pivot=pivot,
        others=tuple(languages[3:]),
        lens=lens.kind,
        headers=dict(zip(states.meta["id"], states.meta["header"], strict=True))
        if "header" in states.meta
        else {},
    )


@typed
def for_causal_test(targets: TargetSets, ids: Sequence[str]) -> TargetSets:
    """Those of some items that have a set in every language, in the items' order.

    Raises:
        TooFewItems: fewer than eight.
    """
    table = targets.sets.loc[[id for id in ids if id in targets.sets.index]]
    lacking = {tag: int((table[tag].map(len) == 0).sum()) for tag in table.columns}
    whole = table[(table.map(len) > 0).all(axis=1)]
    if len(whole) < FEWEST_ITEMS:
        most = max(lacking, key=lambda tag: lacking[tag]) if lacking else "none"
        raise TooFewItems(
            f"{len(whole)} of {len(ids)} items have a word of their own in each of "
            f"{', '.join(map(str, table.columns))}; the causal test needs {FEWEST_ITEMS}. "
            f"{lacking.get(most, 0)} lack one in {most} (no word, or one whose tokens another "
            "language has): offer more words, or other languages (--others)."
        )
    return replace(targets, sets=whole)


def _points(model: HookedModel, lens: Lens, layers: str | int | Sequence[int]) -> tuple[int, ...]:
    """Where words are exchanged: all that are asked for, or of "all" those that a lens has."""
    below = tuple(range(model.n_layers))
    if layers == "all":
        return lens.readable(below, model)
    points = model.layers(layers)
    there = lens.readable(below, model)
    lacking = [n for n in points if n not in there]
    if lacking or not points:
        raise InputError(
            f"Words can't be exchanged at points {lacking}: the {lens.kind} lens has "
            f"{', '.join(map(str, there))} below the last, after which nothing comes."
        )
    return points


def _columns(targets: TargetSets, pivot: str, task: Mapping[str, str]) -> list[str]:
    """Target, pivot and source, then the others."""
    main = list(dict.fromkeys([task["target"], pivot, task["source"]]))
    lacking = [tag for tag in main if tag not in targets.all_languages]
    others = [tag for tag in targets.all_languages if tag not in main]
    if lacking or len(main) < 3 or len(others) < 2:
        raise InputError(
            "The causal test tells a word's concept from its language by words in several: target, "
            f"pivot and source, three different ones, and two others or more. Got "
            f"{', '.join(targets.all_languages)} for {task['source']} → {task['target']} by way of "
            f"{pivot}."
        )
    return [*main, *others]


@dataclass(frozen=True)
class _Design:
    """Who is exchanged with whom; a row is an item with one of its donors."""

    ids: list[str]
    own: list[int]
    donor: list[int]
    columns: dict[str, int]
    languages: list[str]
    other: Int[Tensor, " row"]
    seed: int

    @classmethod
    def of(
        cls,
        asked: Sequence[Prompt],
        targets: TargetSets,
        languages: Sequence[str],
        n_donors: int,
        seed: int,
    ) -> "_Design":
        """With donors whose target words can be told from the item's own."""
        ids, draw = [p.id for p in asked], generator(seed, 5)
        words = [set(cell) for cell in targets.sets.loc[ids, languages[0]]]
        pairs: list[tuple[int, int]] = []
        for _ in range(n_donors):
            pairs += [(i, int(j)) for i, j in enumerate(deranged(words, draw)) if j >= 0]
        if len(pairs) < FEWEST_ITEMS:
            raise TooFewItems(
                f"{len(pairs)} items have a donor whose {languages[0]} word can be told from "
                f"theirs by its first tokens; {FEWEST_ITEMS} are needed. Offer more words."
            )
        columns = {tag: targets.all_languages.index(tag) for tag in languages}
        rest = [columns[tag] for tag in languages[3:]]
        return cls(
            ids,
            [i for i, _ in pairs],
            [j for _, j in pairs],
            columns,
            list(languages),
            torch.from_numpy(draw.choice(rest, len(pairs))),
            seed,
        )

    def frame(self) -> pd.DataFrame:
        """`id donor`."""
        names = np.array(self.ids, dtype=object)
        return pd.DataFrame({"id": names[self.own], "donor": names[self.donor]})

    def sets(self, targets: TargetSets, language: str) -> tuple[Tensor, Tensor]:
        """Of each row's own word in a language and of its donor's: token ids, -1 fills up.

        Those that both have are left out (first letters, say): they speak for neither.
        """
        every = targets.tensor(self.ids)[:, self.columns[language]]
        own, donor = every[self.own], every[self.donor]
        same = own[:, :, None] == donor[:, None]
        return own.masked_fill(same.any(2), -1), donor.masked_fill(same.any(1), -1)


def deranged(words: Sequence[set[int]], draw: np.random.Generator) -> Int[np.ndarray, " item"]:
    """Each item's donor: another one, each once, whose word can be told apart; -1 for none."""
    from scipy.optimize import linear_sum_assignment

    n = len(words)
    # Dearer than all that is allowed together: taken only where nothing else is left.
    cost = draw.random((n, n))
    shut = np.array([[one <= other or other <= one for other in words] for one in words])
    _, donor = linear_sum_assignment(np.where(shut, 2.0 * n, cost))
    return np.where(shut[np.arange(n), donor], -1, donor)


def _moves(
    design: _Design,
    words: Float[Tensor, "item language d_model"],
    states: Float[Tensor, "item d_model"],
) -> dict[tuple[str, str], Rows]:
    """By way and what: what is added to each row's state at a point."""
    columns, (target, pivot, source) = design.columns, design.languages[:3]
    here = Words(words, (columns[target], columns[source]))
    own, donor = design.own, design.donor
    # A stream has much that is the same in every prompt, which is no item's.
    mine = (states - states.mean(0))[own]
    of_pivot = torch.full((len(own),), columns[pivot])
    drawn = torch.from_numpy(generator(design.seed, 7).standard_normal(mine.shape)).float()
    exchanged = {
        "concept": here.concept_exchange(own, donor),
        "pivot": here.remainder_exchange(own, donor, of_pivot),
        "other": here.remainder_exchange(own, donor, design.other),
        "random": here.random_exchange(own, donor, drawn),
    }
    taken = {
        "concept": here.concept_taken(own),
        "pivot": here.remainder_taken(own, of_pivot),
        "other": here.remainder_taken(own, design.other),
        "random": exchanged["random"],
    }
    # An exchange goes from the own to the donor's; what is there of the own lies the other way.
    there = {"exchange": (exchanged, -2.0), "ablation": (taken, 1.0)}
    out: dict[tuple[str, str], Rows] = {}
    for way, (units, times) in there.items():
        held = [(mine * units[what]).sum(-1, keepdim=True) for what in ("concept", "pivot")]
        size = (times * torch.stack(held)).clamp_min(0).amax(0)
        sign = 1.0 if way == "exchange" else -1.0
        out |= {(way, what): sign * size * unit for what, unit in units.items()}
    return out


def _texts(asked: Sequence[Prompt], design: _Design) -> tuple[list[Prompt], bool]:
    """A prompt for each row; and whether all have something after the prompt's own word."""
    ends = [p.spans["word"][1] if "word" in p.spans else len(p.text) for p in asked]
    has_after = all(end < len(p.text) for end, p in zip(ends, asked, strict=True))
    made: list[Prompt] = []
    for n, i in enumerate(design.own):
        prompt = asked[i]
        spans = {_AFTER: (ends[i], len(prompt.text))} if has_after else {}
        made.append(replace(prompt, id=f"{prompt.id}/{n}", spans={**prompt.spans, **spans}))
    return made, has_after


def _variants(
    moves: Mapping[int, Mapping[tuple[str, str], Rows]], where: str
) -> dict[str, Interventions]:
    slot = "last" if where == "last" else f"{_AFTER}:each"
    return {
        f"{point}/{way}/{where}/{what}": add(rows[:, None], layers=point, slot=slot)
        for point, mine in moves.items()
        for (way, what), rows in mine.items()
        if where == "last" or way == "exchange"
    }


def _parsed(name: str) -> tuple[int, str, str, str]:
    point, way, where, what = name.split("/")
    return int(point), way, where, what


def _log_odds(
    readout: Readout, states: Activations, own: Tensor, donor: Tensor
) -> Float[np.ndarray, " row"]:
    return _of_states(readout, states.slot("last").values[-1], own, donor)


def _of_states(
    readout: Readout, resid: Rows, own: Tensor, donor: Tensor
) -> Float[np.ndarray, " row"]:
    """Log-odds of the donor's against the own set; the vocabulary's sum is the same for both."""
    tokens, where = torch.unique(torch.cat([own, donor], 1).clamp_min(0), return_inverse=True)
    logits = readout.at(readout.normed(resid), tokens.to(readout.device)).cpu().double()
    each = torch.take_along_dim(logits, where, 1)
    each = each.masked_fill(torch.cat([own, donor], 1) < 0, -torch.inf)
    n = own.shape[1]
    return (each[:, n:].logsumexp(1) - each[:, :n].logsumexp(1)).numpy()


def _plain(
    model: HookedModel,
    states: Activations,
    lens: Lens,
    points: Sequence[int],
    design: _Design,
    targets: TargetSets,
    pivot: str,
    output: np.ndarray,
) -> pd.DataFrame:
    """What is read and said where nothing is changed, of the own against the donor's word."""
    own, donor = design.sets(targets, pivot)
    apart = ((own >= 0).any(1) & (donor >= 0).any(1)).numpy()
    kept = states.slot("last").values
    values = kept[[states.layer_index(n) for n in points]][:, design.own].float()
    carry = lens.over(points)
    carried = values if carry is None else carry(values)
    tables: list[pd.DataFrame] = []
    for n, point in enumerate(points):
        odds = -_of_states(model.readout, carried[n], own, donor)
        # Words that begin alike in the pivot can't be told apart there.
        readable = np.where(apart, odds, np.nan)
        tables.append(design.frame().assign(layer=point, readable=readable, output=output))
    return pd.concat(tables, ignore_index=True)
