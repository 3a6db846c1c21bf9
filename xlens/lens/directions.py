"""Along which directions words are read at a point, and what an exchange of two words is there.

A lens carries h to J h, and a token's logit is (g ⊙ w) · J h, up to the norm's scale: it is read
along Jᵀ(g ⊙ w). A word's direction in a language is the mean of its target set's unit directions,
less what the words of all other items have in common. Its *concept* is the mean over languages, and
what is left is that language's *remainder*.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from xlens._renamed import renamed
from xlens.lens.lenses import Lens
from xlens.lens.targets import TargetSets
from xlens.models import HookedModel, Readout

Rows = Float[Tensor, "row d_model"]
_NOTHING = 1e-3  # of a direction's length: what rounding leaves of one that cancels out


@renamed(points="layers")
def word_directions(
    model: HookedModel, lens: Lens, layers: Sequence[int], targets: TargetSets
) -> Float[Tensor, "point item language d_model"]:
    """Of every item's word in every language, which all have a set, in fp32 on the CPU."""
    ids = targets.tensor(targets.ids)
    tokens, where = torch.unique(ids.clamp_min(0), return_inverse=True)
    there = (ids >= 0).float()
    read = read_along(model.readout, tokens)
    out: list[Tensor] = []
    for point in layers:
        unit = normalize(lens.back(read, point), dim=-1)[where]
        out.append(torch.einsum("ilsd,ils->ild", unit, there / there.sum(-1, keepdim=True)))
    return torch.stack(out)


def read_along(readout: Readout, tokens: Int[Tensor, " token"]) -> Float[Tensor, "token d_model"]:
    """G ⊙ w of tokens; less its mean under a norm that takes off the state's mean."""
    along = (readout.W_U.T[tokens.to(readout.device)].float() * readout.norm_gain).cpu()
    probe = torch.linspace(-1, 1, readout.d_model)[None]
    centred = torch.allclose(readout.normed(probe + 1), readout.normed(probe), atol=1e-3)
    return along - along.mean(-1, keepdim=True) if centred else along


@dataclass(frozen=True)
class Words:
    """The directions of items' words at a point, split into concepts and remainders.

    Attributes:
        words: By item and language.
        own: Columns of the languages that an exchange must not write: the target's and the
            prompt's own.
    """

    words: Float[Tensor, "item language d_model"]
    own: tuple[int, ...]

    @cached_property
    def concepts(self) -> Float[Tensor, "item d_model"]:
        """Means over the languages."""
        return self.words.mean(1)

    @cached_property
    def remainders(self) -> Float[Tensor, "item language d_model"]:
        """What each language has besides."""
        return self.words - self.concepts[:, None]

    def concept_exchange(self, own: Sequence[int], donor: Sequence[int]) -> Rows:
        """From each row's own concept to its donor's.

        Each without what lies along the target's and the source's word of the same item. (The
        difference of two concepts is that of two target words where language is the same for all
        words: to take that off would leave nothing of what is looked for.)
        """
        common = self._common(own, donor)
        mine, theirs = (self._bare(self.words[at] - common) for at in (own, donor))
        return _unit(theirs - mine, mine)

    def _common(self, *without: Sequence[int]) -> Float[Tensor, "row 1 d_model"]:
        """What the words of all items but a row's own have in common.

        A direction that all words share would be taken off one item's word and off the other's, and
        come back as the difference of these; a mean that held the two would bring them along.
        """
        left = self.concepts.sum(0) - torch.stack([self.concepts[at] for at in without]).sum(0)
        return (left / max(1, len(self.words) - len(without)))[:, None]

    def _bare(self, words: Float[Tensor, "row language d_model"]) -> Rows:
        """Concepts without what lies along the target's and the source's word."""
        return _off(words.mean(1), words[:, self.own])

    def remainder_exchange(
        self, own: Sequence[int], donor: Sequence[int], languages: Int[Tensor, " row"]
    ) -> Rows:
        """From each row's own remainder in a language to its donor's.

        Without what lies along either item's target's and source's remainders, or along the
        concepts' difference: so it writes nothing of the words that are measured.
        """
        mine, theirs = self.remainders[own], self.remainders[donor]
        rows = torch.arange(len(own))
        apart = (self.concepts[donor] - self.concepts[own])[:, None]
        without = torch.cat([mine[:, self.own], theirs[:, self.own], apart], dim=1)
        moved = theirs[rows, languages] - mine[rows, languages]
        return _unit(_off(moved, without), mine[rows, languages])

    def random_exchange(self, own: Sequence[int], donor: Sequence[int], drawn: Rows) -> Rows:
        """Drawn directions, without the target's and source's words of either item."""
        without = torch.cat([self.words[own][:, self.own], self.words[donor][:, self.own]], dim=1)
        return _unit(_off(drawn, without), drawn)

    def concept_taken(self, own: Sequence[int]) -> Rows:
        """Each row's concept, as it differs from other items'."""
        every = list(range(len(self.words)))
        bare = self._bare(self.words - self._common(every))
        return _unit((bare - bare.mean(0))[own], bare[own])

    def remainder_taken(self, own: Sequence[int], languages: Int[Tensor, " row"]) -> Rows:
        """Each row's remainder in a language, as it differs from other items'."""
        apart = (self.concepts - self.concepts.mean(0))[:, None]
        without = torch.cat([self.remainders[:, self.own], apart], dim=1)
        every = self.remainders - self.remainders.mean(0)
        rows = torch.arange(len(own))
        moved = every[own, languages]
        return _unit(_off(moved, without[own]), self.remainders[own][rows, languages])


def _off(rows: Rows, without: Float[Tensor, "row k d_model"]) -> Rows:
    """Rows less their component in the span of what is theirs."""
    basis = without.double()
    along = torch.linalg.pinv(basis.mT, rtol=1e-4) @ rows.double()[..., None]
    return (rows.double() - (basis.mT @ along)[..., 0]).float()


def _unit(rows: Rows, whole: Rows) -> Rows:
    """Of length 1; 0 where next to nothing is left of what was taken."""
    size = rows.norm(dim=-1, keepdim=True)
    some = size > _NOTHING * whole.norm(dim=-1, keepdim=True)
    return torch.where(some, rows / size.clamp_min(1e-30), 0.0)
