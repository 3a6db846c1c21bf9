"""`tally`: how often and how strongly each unit of a site is active, and no state kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from xlens.checks import typed
from xlens.engine.backoff import pass_budget, run_all
from xlens.engine.gather import Seats
from xlens.engine.harvest import prepare
from xlens.engine.interventions import Interventions, check, spans
from xlens.engine.progress import token_bar
from xlens.engine.trunk import Distinct
from xlens.engine.trust import shares_prefixes
from xlens.models import HookedModel
from xlens.models.sites import Keep, Point, activation_site, width_at
from xlens.prompts import Prompt, Prompts, TokenizedPrompt
from xlens.results import Result, versions


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
    prompts: Prompts | Sequence[Prompt],
    *,
    site: str | None = None,
    layers: str | int | Sequence[int] = "all",
    threshold: float = 0.0,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    interventions: Interventions = (),
    progress: bool = True,
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
        progress: Show a bar.

    Returns:
        Counts in int64, sums in fp64.

    Raises:
        ValueError: what `harvest` refuses; a threshold or a value that is not finite.
        MemoryError: a single prompt doesn't fit in memory.
    """
    if not np.isfinite(threshold):
        raise ValueError(f"threshold is {threshold}; it must be a finite number.")
    where = activation_site(model) if site is None else site
    points, _, tokens = prepare(
        model, prompts, layers, "last", prepend_bos, spans(interventions), where
    )
    edits = check(interventions, model, tokens)
    ids = [t.ids for t in tokens]
    found = Distinct.of(ids, edits.codes(ids))
    languages = tuple(dict.fromkeys(t.prompt.language for t in tokens))
    language_of = [languages.index(t.prompt.language) for t in tokens]
    counting = [_counting(model, t) for t in tokens]
    shape = (len(languages), len(points), width_at(model, points))
    counts, sums = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.float64)
    index = {point: i for i, point in enumerate(points)}
    kept: list[tuple[int, Tensor, Tensor]] = []

    def watch(seats: Seats) -> Keep:
        times = _times(seats, counting, found.owners, language_of)
        placed = {device: times.to(device) for device in model.devices}
        change = edits.prepare(seats, found.owners) if edits else None

        def keep(point: Point, states: Tensor) -> Tensor | None:
            changed = None if change is None else change(point, states)
            if point in index:
                here = (states if changed is None else changed).flatten(0, 1).double()
                weights = placed[here.device]
                # What does not count may be anything, padding that saw nothing NaN.
                here = torch.where((weights.sum(0) > 0)[:, None], here, 0.0)
                active = weights @ (here > threshold).double()  # whole numbers: exact to 2**53
                kept.append((index[point], active.cpu(), (weights @ here).cpu()))
            return changed

        return keep

    def commit() -> None:
        for i, active, total in kept:
            counts[:, i] += active.round().long()
            sums[:, i] += total
        kept.clear()

    with token_bar("tally", tokens, progress) as advance:
        run_all(
            model,
            found.sequences,
            edits.visiting(points),
            watch,
            codes=found.codes,
            budget=pass_budget(model, token_budget),
            share=share_prefixes and shares_prefixes(model),
            commit=commit,
            discard=kept.clear,
            advance=lambda done: advance([p for i in done for p in found.owners[i]]),
        )
    if not sums.isfinite().all():
        raise ValueError(
            f"{int((~sums.isfinite()).sum())} sums are not finite: the model overflowed; load it "
            "in float32 or bfloat16."
        )
    n_tokens = np.zeros(len(languages), dtype=np.int64)
    for language, own in zip(language_of, counting, strict=True):
        n_tokens[language] += sum(own)
    return Tally(
        counts=counts.numpy(),
        sums=sums.numpy(),
        n_tokens=n_tokens,
        languages=languages,
        layers=tuple(int(point) for point in points),
        site=where,
        threshold=float(threshold),
        provenance={
            **model.provenance(tokens),
            "versions": versions(),
            **({"interventions": edits.key} if edits else {}),
        },
    )


def _counting(model: HookedModel, tokens: TokenizedPrompt) -> list[bool]:
    """Which tokens are the text's: not what the tokenizer put around it, and no BOS before it."""
    special = set(model.tokenizer.all_special_ids)
    own = [
        stop > start or token not in special
        for token, (start, stop) in zip(tokens.ids, tokens.offsets, strict=True)
    ]
    if tokens.ids[0] == model.tokenizer.bos_token_id:
        own[0] = False  # the text's own
    return own


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
