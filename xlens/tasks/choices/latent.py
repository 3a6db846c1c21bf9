"""Which language's options does a layer favour, and does it favour the right one?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import expit, logsumexp

from xlens.checks import typed
from xlens.engine import score
from xlens.engine.transport import Transport, kind_of
from xlens.errors import InputError
from xlens.headers import HEADERS, Headers
from xlens.lengths import WAYS, By, compared
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.prompts.fewshot import Shown, seeded_rank
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap
from xlens.store import Store
from xlens.tasks.choices.data import Choice, Choices
from xlens.tasks.choices.prompts import demonstrations, language_prompts
from xlens.tasks.choices.scoring import asked_how
from xlens.tasks.choices.text import folded, gap

SETS = ("native", "pivot", "control")
_ENDS = {"": "mean", "_low": "low", "_high": "high"}
QUANTITIES = ("share", "share_control", "right_native", "right_pivot")


@dataclass(frozen=True, kw_only=True)
class LatentSummary(Result):
    """Means over items with intervals: what a figure draws.

    Attributes:
        table: `language layer quantity mean low high n`; undefined items are left out, and counted
            out of `n`.
        pivot: The language suspected inside.
        chance: By language, how often guessing is right.
        by: What probabilities are of, as in `LatentOptions`.
        confidence: Of the intervals.
        lens: Through which layers below the last were read.
    """

    table: pd.DataFrame
    pivot: str
    chance: dict[str, float]
    by: By
    confidence: float
    lens: str = "logit"

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def counted(self) -> pd.DataFrame:
        """By language, at how many layers the pivot's options hold more than its control.

        Returns:
            `language above layers most at control right right_low right_high chance`: `above` of
            so many `layers` whose interval lies above that of the control; `most`, the highest
            share, `at` its layer, and the `control` there; and how often the own options' most
            probable is the right one at the highest layer.
        """
        rows: list[dict[str, Any]] = []
        for language, mine in self.table.groupby("language", sort=False):
            by = {str(name): each.set_index("layer") for name, each in mine.groupby("quantity")}
            # Layers where every item is undefined have no share, and are not counted.
            share, null = by["share"].dropna(subset=["mean"]), by["share_control"]
            right = by["right_native"].sort_index().iloc[-1]
            at = None if share.empty else int(share["mean"].to_numpy().argmax())
            rows.append(
                {
                    "language": language,
                    "above": int((share["low"] > null["high"].reindex(share.index)).sum()),
                    "layers": len(share),
                    "at": np.nan if at is None else share.index[at],
                    "most": np.nan if at is None else share["mean"].iloc[at],
                    "control": np.nan if at is None else null["mean"].reindex(share.index).iloc[at],
                    **{f"right{end}": right[name] for end, name in _ENDS.items()},
                    "chance": self.chance[str(language)],
                }
            )
        return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class LatentOptions(Result):
    """Latent probabilities of native and pivot options after native prompts, by layer.

    Attributes:
        options: One row per item, language, layer, set and option: `id language layer set option
            text logprob n_tokens mean_logprob byte_logprob char_logprob`, logarithms in nats. Sets:
            `native`, `pivot` (the same options in the pivot language) and `control` (another item's
            pivot options).
        items: One row per item, language and layer: `id language layer share share_control
            right_native right_pivot`.
        dropped: Items left out of a language: `id language reason detail`.
        pivot: The language suspected inside.
        gold: Number of the right option by item id.
        paragraphs: What each item belongs to (`Choices.paragraphs`): intervals draw these whole.
        headers: Of demonstrations, by item, where items share some: drawn whole, too.
        by: What probabilities are of: `logprob` the whole option, `mean_logprob` (`p^(1/n_tokens)`)
            its tokens, `byte_logprob` its bytes, `char_logprob` its characters.
        lens: Through which layers below the last were read.
    """

    options: pd.DataFrame
    items: pd.DataFrame
    dropped: pd.DataFrame
    pivot: str
    gold: dict[str, int]
    by: By = "logprob"
    paragraphs: dict[str, str] = field(default_factory=dict[str, str])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    lens: str = "logit"

    def to_frame(self) -> pd.DataFrame:
        """`items`."""
        return self.items

    def first_read(self) -> pd.DataFrame:
        """Of the first item and language: `layer share native pivot`, the most probable options."""
        first = self.options.iloc[0]
        table = self.options
        mine = table[(table["id"] == first["id"]) & (table["language"] == first["language"])]
        best = mine.assign(score=compared(mine, self.by)).sort_values("score", kind="stable")
        # Sorted by score: the last of each group is the most probable.
        last = best.groupby(["layer", "set"])["text"].last().unstack()
        items = self.items
        here = items[(items["id"] == first["id"]) & (items["language"] == first["language"])]
        found = last[["native", "pivot"]].join(here.set_index("layer")["share"])
        return found.reset_index()

    def compared(self, by: By) -> "LatentOptions":
        """The same scores, read by another way of comparing options of unequal length."""
        return replace(self, items=item_shares(self.options, self.gold, by=by), by=by)

    @property
    def chance(self) -> dict[str, float]:
        """By language, how often guessing is right: one over the options, mean over items."""
        table = self.options[self.options["set"] == "native"]
        counts = table.drop_duplicates(["language", "id", "option"]).groupby(["language", "id"])
        means = (1 / counts.size()).groupby("language").mean()
        return {str(language): float(mean) for language, mean in means.items()}

    def summary(self, *, resampling: Resampling = Resampling()) -> LatentSummary:
        """Means over items, with intervals (all items about one passage drawn together).

        Raises:
            ValueError: no such column of clusters.
        """
        frames: list[pd.DataFrame] = []
        for language, mine in self.items.groupby("language", sort=False):
            wide = mine.pivot(index="id", columns="layer", values=list(QUANTITIES))
            items = wide.index.to_frame(index=False)
            items["paragraph"] = [self.paragraphs.get(str(id), str(id)) for id in items["id"]]
            if self.headers:
                items["header"] = items["id"].map(self.headers)
            codes = resampling.codes(items)
            boot = bootstrap(
                wide.to_numpy(float), clusters=codes, resampling=resampling, bounds=(0, 1)
            )
            low, high = boot.interval()
            frame = pd.DataFrame(list(wide.columns), columns=["quantity", "layer"])
            frame.insert(0, "language", language)
            frames.append(frame.assign(mean=boot.mean, low=low, high=high, n=boot.n))
        return LatentSummary(
            provenance=analysed(self.provenance, "summary", resampling.provenance()),
            table=pd.concat(frames, ignore_index=True),
            pivot=self.pivot,
            chance=self.chance,
            by=self.by,
            confidence=resampling.confidence,
            lens=self.lens,
        )


@typed
def latent_options(
    model: HookedModel,
    choices: Choices,
    *,
    languages: Iterable[str] | None = None,
    pivot: str = "en",
    layers: str | int | Sequence[int] = "all",
    by: By = "logprob",
    shots: int = 0,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Choices | None = None,
    show_options: bool = False,
    lens: Transport | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> LatentOptions:
    """Probabilities of an item's options in its own and in the pivot language, layer by layer.

    At layer l, `p(o | q)` is the product over the option's tokens, each read through the lens from
    the state that predicts it (arXiv 2505.13141, as third parties report it; the moving state is
    our reading). With N and E the options in the native and the pivot language:

    - `share` = Σ_E p / (Σ_E p + Σ_N p): the pivot's share. `share_control`: the same with another
      item's pivot options, of the same kind where possible and without this item's answer: what
      the pivot language gets whatever the question.
    - `right_native`, `right_pivot`: whether the most probable option of the set is the right one.

    Computed from logarithms; where all of both sets vanish, NaN. Options of an item that are one
    string in both languages can't be told apart: the item is left out of that language.

    Args:
        model: From `xlens.load`.
        choices: The items, in `pivot` too.
        languages: Of the prompts; None: all but the pivot.
        pivot: The language suspected inside.
        layers: Residual points.
        by: Probabilities of whole options, or (`mean_logprob`, `byte_logprob`, `char_logprob`) per
            token, byte or character. Scripts differ in all three: look at another by
            `LatentOptions.compared`.
        shots: Demonstrations; this and the next four as in `choice_prompts`.
        seed: Of the demonstrations and of the control.
        headers: That items share.
        pool: Items to demonstrate with.
        show_options: Name the options in the prompt.
        lens: Through which layers below the last are read (`xlens.lens`), those that it has; None:
            the logit lens.
        store: Where scores are kept.
        progress: Show bars.

    Raises:
        ValueError: the pivot isn't there or is among `languages`, one item only, none left in a
            language, and as `choice_prompts` and `score`.
    """
    asked = offered_options(
        choices,
        languages,
        pivot=pivot,
        shots=shots,
        seed=seed,
        headers=headers,
        pool=pool,
        show_options=show_options,
    )
    scores = score(
        model,
        asked.prompts,
        asked.candidates,
        layers=layers,
        lens=lens,
        store=store,
        progress=progress,
    )
    # An option can stand in two sets (a control shares options with its item): scored once.
    table = asked.table.merge(
        scores.table.drop(columns="candidate"), on=["id", "language", "text"], how="left"
    )
    order = ["id", "language", "layer", "set", "option", "text", "logprob", "n_tokens"]
    table = table[[*order, *WAYS[1:]]]
    golds = choices.gold
    return LatentOptions(
        provenance=analysed(
            scores.provenance,
            "latent",
            asked_how(choices, pool, asked.shown, seed, show_options)
            | ({"through": lens.key} if lens is not None and lens.key else {}),
        ),
        options=table,
        items=item_shares(table, golds, by=by),
        dropped=asked.dropped,
        pivot=asked.pivot,
        gold={id: golds[id] for id in dict.fromkeys(table["id"])},
        by=by,
        paragraphs=choices.paragraphs,
        headers=asked.shown.names,
        lens=kind_of(lens),
    )


@dataclass(frozen=True)
class OfferedOptions:
    """What `latent_options` scores after each prompt.

    Attributes:
        prompts: One per item and language.
        candidates: Of each, no text twice.
        table: `id language set option text`: native, pivot's and control's; a text can stand in
            two sets (a control shares options with its item).
        dropped: `id language reason detail`.
        pivot: The language suspected inside.
        shown: Demonstrations.
    """

    prompts: Prompts
    candidates: list[list[str]]
    table: pd.DataFrame
    dropped: pd.DataFrame
    pivot: str
    shown: Shown


@typed
def offered_options(
    choices: Choices,
    languages: Iterable[str] | None = None,
    *,
    pivot: str = "en",
    shots: int = 0,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Choices | None = None,
    show_options: bool = False,
) -> OfferedOptions:
    """The prompts of `latent_options` with the options of each; its arguments, and its errors."""
    (english,) = choices.require([pivot])
    tags = choices.require(languages or [t for t in choices.languages if t != english])
    if english in tags:
        raise InputError(
            f"The pivot {english!r} is among the languages {list(tags)}: its options are native "
            "there. Leave it out."
        )
    shown = demonstrations(choices, pool or choices, shots, seed, headers, show_options)
    texts = {id: item.options for id, item in choices.items(english).items()}
    donors = _donors(choices.items(english), seed)
    prompts: list[Prompt] = []
    candidates: list[list[str]] = []
    wanted: list[tuple[str, str, str, int, str]] = []
    dropped: list[tuple[str, str, str, str]] = []
    for tag in tags:
        mine, native = language_prompts(choices, pool or choices, tag, shown, show_options, None)
        kept: list[tuple[Prompt, tuple[str, ...]]] = []
        for prompt, options in zip(mine, native, strict=True):
            same = {folded(o) for o in options} & {folded(o) for o in texts[prompt.id]}
            if same:
                detail = " / ".join(sorted(same))
                dropped.append((prompt.id, tag, "identical options", detail))
            else:
                kept.append((prompt, options))
        if not kept:
            raise InputError(
                f"No item is left in {tag}: each has an option identical in {english}. Give other "
                "items, or leave the language out."
            )
        for prompt, options in kept:
            offered: dict[str, tuple[str, ...]] = {
                "native": options,
                "pivot": tuple(gap(english) + o for o in texts[prompt.id]),
                "control": tuple(gap(english) + o for o in texts[donors[prompt.id]]),
            }
            wanted += [
                (prompt.id, tag, name, n, text)
                for name, mine_too in offered.items()
                for n, text in enumerate(mine_too)
            ]
            prompts.append(prompt)
            candidates.append(list(dict.fromkeys(t for o in offered.values() for t in o)))
    return OfferedOptions(
        Prompts(prompts),
        candidates,
        pd.DataFrame(wanted, columns=["id", "language", "set", "option", "text"]),
        pd.DataFrame(dropped, columns=["id", "language", "reason", "detail"]),
        english,
        shown,
    )


def item_shares(options: pd.DataFrame, gold: dict[str, int], *, by: str) -> pd.DataFrame:
    """`LatentOptions.items` from its `options`, compared `by` one of `xlens.lengths.WAYS`."""
    keys = ["id", "language", "layer"]
    scored = options[[*keys, "set", "option"]].assign(score=compared(options, by))
    wide = scored.pivot(index=keys, columns=["set", "option"], values="score")
    # Back in the order of the options: pivot sorts by itself.
    wide = wide.reindex(pd.MultiIndex.from_frame(options[keys].drop_duplicates()))
    sets = {name: wide[name].sort_index(axis=1).to_numpy(float) for name in SETS}
    right = wide.index.get_level_values("id").map(gold).to_numpy()
    out = wide.index.to_frame(index=False)
    out["share"] = _share(sets["pivot"], sets["native"])
    out["share_control"] = _share(sets["control"], sets["native"])
    out["right_native"] = _right(sets["native"], right)
    out["right_pivot"] = _right(sets["pivot"], right)
    return out


def _share(
    one: Float[np.ndarray, "row option"], other: Float[np.ndarray, "row option"]
) -> Float[np.ndarray, " row"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        # a / (a + b) is the logistic function of log a - log b: nothing underflows on the way.
        # Where both sums are 0 it is inf - inf, which is NaN.
        return expit(_sum(one) - _sum(other))


def _sum(logs: Float[np.ndarray, "row option"]) -> Float[np.ndarray, " row"]:
    # Items with fewer options than others have NaN after their last.
    return np.asarray(logsumexp(np.where(np.isnan(logs), -np.inf, logs), axis=1))


def _right(logs: Float[np.ndarray, "row option"], gold: Any) -> Float[np.ndarray, " row"]:
    there = np.where(np.isnan(logs), -np.inf, logs)
    found = (there.argmax(1) == gold).astype(float)
    return np.where(np.isneginf(there).all(1), np.nan, found)


def _donors(items: Mapping[str, Choice], seed: int) -> dict[str, str]:
    """For each item another one whose options don't hold its answer, of its kind if there is one.

    Raises:
        ValueError: one item only.
    """
    if len(items) < 2:
        raise InputError("The control needs another item's options; give two items or more.")
    # Each walks the same seeded circle from its own place, through its kind first.
    every = sorted(items, key=lambda id: seeded_rank("control", id, seed=seed))
    alike: dict[tuple[str, int], list[str]] = {}
    for id in every:
        alike.setdefault((items[id].kind, len(items[id].options)), []).append(id)
    found: dict[str, str] = {}
    for circle in (*alike.values(), every):
        for n, id in enumerate(circle):
            answer = folded(items[id].options[items[id].gold])
            others = (circle[(n + k) % len(circle)] for k in range(1, len(circle)))
            fit = (o for o in others if answer not in map(folded, items[o].options))
            if id not in found and (donor := next(fit, None)):
                found[id] = donor
    # Where each other item holds the answer, the next one must do.
    nexts = dict(zip(every, [*every[1:], *every[:1]], strict=True))
    return nexts | found
