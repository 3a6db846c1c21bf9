"""A language's neurons as a push towards it, as vectors are: with a strength, and a control."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from xlens.checks import typed
from xlens.engine import Tally
from xlens.engine.interventions import Intervention, scale, set_to
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.neurons.lape import LanguageNeurons
from xlens.stats import generator


@dataclass(frozen=True, kw_only=True)
class NeuronPush:
    """The source's units switched off, the target's set to what they are in the target.

    Attributes:
        on: Units that are set, by block; none of them is the source's.
        off: Units that are switched off, by block.
        means: What every unit is on average in the target.
        blocks: Of the rows of `means`.
        source: The language that is left.
        target: The language that is gone to.
        site: Where the units are.
        method: As results name it.
    """

    on: dict[int, tuple[int, ...]]
    off: dict[int, tuple[int, ...]]
    means: Float[np.ndarray, "layer unit"]
    blocks: tuple[int, ...]
    source: str
    target: str
    site: str
    method: str = "neurons"

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual points that the blocks of the units write."""
        return tuple(sorted(block + 1 for block in {*self.on, *self.off}))

    def random(self, *, seed: int = 0) -> "NeuronPush":
        """The control: as many other units in the same blocks, set to their own means."""
        on, off = dict[int, tuple[int, ...]](), dict[int, tuple[int, ...]]()
        for block in sorted({*self.on, *self.off}):
            taken = {*self.on.get(block, ()), *self.off.get(block, ())}
            rest = np.setdiff1d(np.arange(self.means.shape[1]), sorted(taken))
            # A path for each block, so that one block's number of
            # units doesn't change another's draw.
            drawn = generator(seed, block).permutation(rest).tolist()
            n = len(self.on.get(block, ()))
            on[block] = tuple(sorted(drawn[:n]))
            off[block] = tuple(sorted(drawn[n : n + len(self.off.get(block, ()))]))
        return replace(self, on=on, off=off, method="random neurons")

    def interventions(
        self,
        model: HookedModel,
        *,
        strength: float = 1.0,
        layers: Sequence[int] | int | None = None,
        slot: str = "all",
    ) -> list[Intervention]:
        """What `generate` takes: `strength` times the mean for the one, 0 for the others.

        Args:
            model: Whose units they are.
            strength: Factor on the means.
            layers: Some of the residual points, whose blocks are changed; None: all.
            slot: `last`, `all`, `generated` or a span's.

        Raises:
            ValueError: a model of other width, or layers without units.
        """
        # Layers are residual points, as vectors have them: block n - 1 writes point n.
        chosen = {layers} if isinstance(layers, int) else {*(layers or self.layers)}
        edits: list[Intervention] = []
        for block in (n - 1 for n in self.layers if n in chosen):
            if units := self.on.get(block):
                means = self.means[self.blocks.index(block)]
                values = [strength * float(means[unit]) for unit in units]
                edits.append(set_to(units, values, site=self.site, layers=block, slot=slot))
            if units := self.off.get(block):
                edits.append(scale(units, 0.0, site=self.site, layers=block, slot=slot))
        if not edits:
            raise InputError(
                f"No unit of {self.target} or {self.source} is at layers {sorted(chosen)}; there "
                f"are some at {self.layers}."
            )
        return edits


@typed
def neuron_push(
    counted: Tally, neurons: LanguageNeurons, source: str, target: str
) -> NeuronPush | None:
    """A push from one language to another by their units, after arXiv 2507.22608's replacement.

    Args:
        counted: What the neurons were chosen from: it knows every unit's mean.
        neurons: From `language_neurons`.
        source: Whose units are switched off, those of the target excepted.
        target: Whose units are set to their mean in it, those of the source excepted.

    Returns:
        The push; None where neither has a unit of its own.

    Raises:
        ValueError: a language that was not counted.
    """
    mine, other = neurons.units(target), neurons.units(source)
    on, off = dict[int, tuple[int, ...]](), dict[int, tuple[int, ...]]()
    for block in neurons.layers:
        # A unit of both languages is left as it is: switching it off would take the target's away.
        here, there = {*mine.get(block, ())}, {*other.get(block, ())}
        if here - there:
            on[block] = tuple(sorted(here - there))
        if there - here:
            off[block] = tuple(sorted(there - here))
    if not on and not off:
        return None
    return NeuronPush(
        on=on,
        off=off,
        means=counted.means[counted.languages.index(target)],
        blocks=counted.layers,
        source=source,
        target=target,
        site=neurons.site,
    )
