"""`tally`: how often and how strongly each unit of a site is active, and no state kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from xlens.checks import typed
from xlens.engine.backoff import pass_budget, run_all
from xlens.engine.copies import HostCopies
from xlens.engine.executors import Executor
from xlens.engine.gather import Seats
from xlens.engine.interventions import Interventions, check, spans
from xlens.engine.progress import token_bar
from xlens.engine.request import Execution, Request, Shard, Subject
from xlens.engine.states import prepare
from xlens.engine.stored import answered, made_by
from xlens.engine.trunk import Distinct
from xlens.engine.trust import shares_prefixes
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.passes import widest
from xlens.models.sites import Keep, Point, activation_site, width_at
from xlens.prompts import PromptsLike, TokenizedPrompt
from xlens.results import Result
from xlens.store import Entry, Parts, Store, digest

SHARD_TOKENS = 2**14  # whose counts a kill loses at most


@dataclass(frozen=True, kw_only=True)
class Tally(Result):
    """Counts and sums over tokens. Made by `tally`.

    Attributes:
        counts: Tokens at which a unit is above the threshold.
        sums: Of its values, over all tokens.
        n_tokens: Tokens of each language.
        languages: The languages, in order of first appearance.
        layers: Blocks, or residual points.
        site: Where.
        threshold: Above which a unit is active.
        provenance: Model, versions, interventions.
    """

    counts: Int64[np.ndarray, "language layer unit"]
    sums: Float64[np.ndarray, "language layer unit"]
    n_tokens: Int64[np.ndarray, " language"]
    languages: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    threshold: float
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """A row per language, layer and unit: `count`, `sum`, `n_tokens`."""
        shape = self.counts.shape
        axes = pd.MultiIndex.from_product(
            [self.languages, self.layers, range(shape[2])], names=["language", "layer", "unit"]
        )
        columns = {
            "count": self.counts.ravel(),
            "sum": self.sums.ravel(),
            "n_tokens": self.n_tokens.repeat(shape[1] * shape[2]),
        }
        return pd.DataFrame(columns, index=axes).reset_index()

    @property
    def probabilities(self) -> Float64[np.ndarray, "language layer unit"]:
        """The share of a language's tokens at which a unit is active."""
        return self.counts / self.n_tokens[:, None, None]

    @property
    def means(self) -> Float64[np.ndarray, "language layer unit"]:
        """A unit's mean over a language's tokens."""
        return self.sums / self.n_tokens[:, None, None]


@typed
def tally(
    model: HookedModel,
    prompts: PromptsLike,
    *,
    site: str | None = None,
    layers: str | int | Sequence[int] = "all",
    threshold: float = 0.0,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    interventions: Interventions = (),
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> Tally:
    """Count, by language, the tokens at which each unit of a site is active, inside the hook.

    A token counts as often as its prompts occur, though its pass was shared or made once for equal
    prompts; what the tokenizer put before a text and after it (BOS) and padding do not count.
    Memory does not grow with the number of tokens, and a pass that fails adds nothing.

    Args:
        model: From `xlens.load`.
        prompts: What to run.
        site: Where; None for the output of the MLP's activation function.
        layers: Blocks, or residual points at `resid`.
        threshold: A unit is active above it.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass.
        share_prefixes: Run common beginnings once.
        interventions: Changes to what runs.
        store: A `Store` or its folder: what it holds is not computed again, a killed run goes on
            where it was. None keeps nothing on disk.
        progress: Show a bar.
        executor: Where it runs, as for `harvest`.

    Returns:
        Counts in int64, sums in fp64.

    Raises:
        ValueError: what `harvest` refuses; a threshold or a value that is not finite.
        MemoryError: a single prompt doesn't fit in memory.
    """
    if not np.isfinite(threshold):
        raise InputError(f"threshold is {threshold}; it must be a finite number.")
    where = activation_site(model) if site is None else site
    points, _, tokens = prepare(
        model, prompts, layers, "last", prepend_bos, spans(interventions), where
    )
    counting = tuple(_counting(model, t) for t in tokens)
    request = TallyRequest(
        subject=Subject.of(model, tokens),
        tokens=tuple(tokens),
        points=points,
        edits=check(interventions, model, tokens),
        split=_by_tokens([len(t) for t in tokens]),
        counting=counting,
        threshold=float(threshold),
    )
    how = Execution(
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        store=store,
        progress=progress,
        executor=executor,
    )
    languages = request.languages
    shape = (len(languages), len(points), width_at(model, points))
    counts, sums = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    n_tokens = np.zeros(len(languages), dtype=np.int64)
    with answered(model, [request], how) as entries:
        for found, rows in _shards(model, request, how, entries):
            at = [languages.index(language) for language in rows["language"]]
            counts[at] += found["counts"].numpy()
            sums[at] += found["sums"].numpy()
            n_tokens[at] += rows["n_tokens"].to_numpy()
        came = made_by(entries)
    return Tally(
        counts=counts,
        sums=sums,
        n_tokens=n_tokens,
        languages=languages,
        layers=request.layers,
        site=where,
        threshold=float(threshold),
        provenance={
            **request.subject.provenance,
            **came,
            **({"interventions": request.edits.key} if request.edits else {}),
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class TallyRequest(Request):
    """Counts and sums over tokens at points.

    Attributes:
        counting: Which of each prompt's tokens count.
        threshold: Above which a unit is active.
    """

    kind: ClassVar[str] = "tally"
    counting: tuple[tuple[bool, ...], ...]
    threshold: float

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the prompts, in order of first appearance."""
        return tuple(dict.fromkeys(t.prompt.language for t in self.tokens))

    def decided(self) -> dict[str, Any]:
        """Points, and which tokens count."""
        return {
            "site": self.site,
            "layers": self.layers,
            "threshold": self.threshold,
            "counting": digest(self.counting),
        }

    def part(self, start: int, stop: int) -> Self:
        """The request for prompts `start:stop`, in one shard."""
        return replace(super().part(start, stop), counting=self.counting[start:stop])

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """`counts` and `sums` `[language, layer, unit]`, and a row for each language.

        Raises:
            ValueError: a sum is not finite.
        """
        tokens, points, edits = self.tokens, self.points, self.edits
        ids = [t.ids for t in tokens]
        distinct = Distinct.of(ids, edits.codes(ids))
        languages = self.languages
        language_of = [languages.index(t.prompt.language) for t in tokens]
        shape = (len(languages), len(points), width_at(model, points))
        counts = torch.zeros(shape, dtype=torch.int64)
        sums = torch.zeros(shape, dtype=torch.float64)
        index = {point: i for i, point in enumerate(points)}
        copies = HostCopies()

        def added(i: int, found: Tensor) -> None:
            active, total = found
            counts[:, i] += active.round().long()
            sums[:, i] += total

        def watch(seats: Seats) -> Keep:
            times = _times(seats, self.counting, distinct.owners, language_of)
            placed = {device: times.to(device, widest(device)) for device in model.devices}
            change = edits.prepare(seats, distinct.owners) if edits else None

            def keep(point: Point, states: Tensor) -> Tensor | None:
                changed = None if change is None else change(point, states)
                if point in index:
                    here = (states if changed is None else changed).flatten(0, 1)
                    here = here.to(widest(here.device))
                    weights = placed[here.device]
                    # What does not count may be anything, padding that saw nothing NaN.
                    here = torch.where((weights.sum(0) > 0)[:, None], here, 0.0)
                    # Whole numbers: exact to 2**53, and of a pass in fp32 too.
                    active = weights @ (here > self.threshold).to(weights.dtype)
                    found = torch.stack([active, weights @ here])
                    copies.take(found, partial(added, index[point]))
                return changed

            return keep

        with token_bar("tally", tokens, how.progress) as advance:
            run_all(
                model,
                distinct.sequences,
                edits.visiting(points),
                watch,
                codes=distinct.codes,
                budget=pass_budget(model, how.token_budget),
                share=how.share_prefixes and shares_prefixes(model),
                commit=copies.commit,
                discard=lambda _: copies.discard(),
                advance=lambda done: advance([p for i in done for p in distinct.owners[i]]),
            )
            copies.finish()
        if not sums.isfinite().all():
            raise InputError(
                f"{int((~sums.isfinite()).sum())} sums are not finite: the model overflowed; load "
                "it in float32 or bfloat16."
            )
        n_tokens = [0] * len(languages)
        for language, own in zip(language_of, self.counting, strict=True):
            n_tokens[language] += sum(own)
        rows = pd.DataFrame({"language": languages, "n_tokens": n_tokens})
        return {"counts": counts, "sums": sums}, rows


def _shards(
    model: HookedModel, request: TallyRequest, how: Execution, entries: Sequence[Entry] | None
) -> Iterator[Shard]:
    if entries is None:
        yield request.compute(model, how)
        return
    for number in range(request.shards):
        yield entries[0].read(number), entries[0].rows_of(number)


def _by_tokens(lengths: Sequence[int]) -> tuple[int, ...]:
    """Prompts in shards of about `SHARD_TOKENS`."""
    bounds, size = [0], 0
    for i, length in enumerate(lengths):
        if size >= SHARD_TOKENS:
            bounds.append(i)
            size = 0
        size += length
    return (*bounds, len(lengths))


def _counting(model: HookedModel, tokens: TokenizedPrompt) -> tuple[bool, ...]:
    """Which tokens are the text's: not what the tokenizer put around it, and no BOS before it."""
    special = set(model.tokenizer.all_special_ids)
    own = [
        stop > start or token not in special
        for token, (start, stop) in zip(tokens.ids, tokens.offsets, strict=True)
    ]
    if tokens.ids[0] == model.tokenizer.bos_token_id:
        own[0] = False  # the text's own
    return tuple(own)


def _times(
    seats: Seats,
    counting: Sequence[Sequence[bool]],
    owners: dict[int, list[int]],
    language_of: Sequence[int],
) -> Tensor:
    """How often each place of a pass counts for each language, `[language, batch * pos]`."""
    rows = 1 + max(row for row, *_ in seats.tokens.values())
    n = 1 + max(language_of)
    times = torch.zeros(n, rows, seats.width, dtype=torch.float64)
    for sequence, (row, first, held, at) in seats.tokens.items():
        for prompt in owners[sequence]:
            own = torch.tensor(counting[prompt][first : first + held], dtype=torch.float64)
            times[language_of[prompt], row, at : at + held] += own
    return times.flatten(1)
