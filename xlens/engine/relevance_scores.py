"""`RelevanceScores`: what `relevance` found."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result


@dataclass(frozen=True, kw_only=True)
class RelevanceScores(Result):
    """Relevance of residual points to one scalar per prompt.

    Attributes:
        values: `[layer, row]`: relevance, in units of the scalar. Signed.
        rows: What each row is, prompt by prompt within a slot: `slot prompt position token`;
            position and token are -1 for means and sums.
        totals: `[layer, prompt]`: sum over all of the prompt's tokens, BOS included.
        targets: One row per prompt: `prompt position token label value`: where the scalar was
            read, the target token, and the scalar itself (logit, or log-probability in nats).
        layers: Residual points, ascending; 0 is the embedding.
        meta: One row per prompt: `id language n_tokens tokens` and the prompts' meta.
        fingerprint: Of the model.
        rule: Name of the backward rule.
        scalar: `logit` or `logprob`.
    """

    values: Float[np.ndarray, "layer row"]
    rows: pd.DataFrame
    totals: Float[np.ndarray, "layer prompt"]
    targets: pd.DataFrame
    layers: tuple[int, ...]
    meta: pd.DataFrame
    fingerprint: str
    rule: str
    scalar: str

    def __repr__(self) -> str:
        slots = ", ".join(
            f"{s}[{n}]" for s, n in self.rows.groupby("slot", sort=False).size().items()
        )
        return (
            f"RelevanceScores({len(self.meta)} prompts, {len(self.layers)} layers, {slots}, "
            f"{self.rule} of the {self.scalar}, {self.provenance.get('model')})"
        )

    def slot(self, name: str, prompt: int | None = None) -> Float[np.ndarray, "layer row"]:
        """The values of one slot, of one prompt if it is named.

        Raises:
            ValueError: no such slot.
        """
        here = (self.rows["slot"] == name).to_numpy()
        if not here.any():
            raise InputError(
                f"No slot {name!r} in these relevance scores; they hold "
                f"{list(self.rows['slot'].unique())}. Name one, or ask relevance() for it."
            )
        if prompt is not None:
            here = here & (self.rows["prompt"] == prompt).to_numpy()
        return self.values[:, here]

    @typed
    def get(self, slot: str) -> Float[np.ndarray, "prompt layer"]:
        """A slot with one row per prompt: `last`, `NAME:first|last|mean|sum`.

        Raises:
            ValueError: no such slot, or one with several rows per prompt.
        """
        values = self.slot(slot)
        if list(self.rows.loc[self.rows["slot"] == slot, "prompt"]) != list(range(len(self.meta))):
            raise InputError(
                f"Slot {slot!r} has several rows per prompt; use slot({slot!r}, prompt), or ask "
                "relevance() for a mean or a sum."
            )
        return values.T

    def to_frame(self) -> pd.DataFrame:
        """One row per row and layer: `rows`' columns, `id language layer relevance`."""
        names = self.meta[["id", "language"]]
        rows = self.rows.join(names, on="prompt")
        wide = rows.loc[rows.index.repeat(len(self.layers))].reset_index(drop=True)
        wide["layer"] = np.tile(self.layers, len(rows))
        wide["relevance"] = self.values.T.reshape(-1)
        return wide

    def conservation(self) -> pd.DataFrame:
        """How much of the scalar the tokens account for: `prompt layer total value error`.

        `error` is |total - value| / |value|. A logit's relevance by AttnLRP should add up to the
        logit, but for biases and the softmax; a plain gradient's need not, nor a log-probability's.
        """
        value = self.targets["value"].to_numpy()
        n = len(self.layers)
        frame = pd.DataFrame(
            {
                "prompt": np.repeat(np.arange(len(value)), n),
                "layer": np.tile(self.layers, len(value)),
                "total": self.totals.T.reshape(-1),
                "value": np.repeat(value, n),
            }
        )
        frame["error"] = (frame["total"] - frame["value"]).abs() / frame["value"].abs()
        return frame
