"""MLPs as matrices: gradients of many rows go back through an MLP as through one small product.

An MLP writes `W_down m`, where each number of m is made from the numbers at its place in what one
or two projections `W` of the state give. Its Jacobian at a token, `W_down Σ diag(slope) W`, takes
one product to make, `d_model` wide on both sides, and spares every row two or three of the MLP's
own width and all that is done there element by element.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xlens.models import HookedModel
from xlens.models.hooks import Forward, after, before, instead


class FoldedMLP:
    """An MLP at the tokens of one pass."""

    def __init__(
        self,
        down: Float[Tensor, "d_model d_mlp"],
        inward: Sequence[Float[Tensor, "d_mlp d_model"]],
        slopes: Sequence[Float[Tensor, "*token d_mlp"]],
    ) -> None:
        self._down, self._inward, self._slopes = down, inward, slopes
        self._matrices: Float[Tensor, "*token d_model d_model"] | None = None

    def back(self, gradient: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token d_model"]:
        """What a gradient at the MLP's output is at its input."""
        if self._matrices is not None:
            return _ByToken.apply(gradient, self._matrices)  # type: ignore[no-any-return]
        wide = gradient @ self._down
        first, *others = zip(self._slopes, self._inward, strict=True)
        found = (wide * first[0]) @ first[1]
        for slope, weight in others:
            found = found + (wide * slope) @ weight
        return found

    def pays(self, rows: int) -> bool:
        """Whether the matrices take fewer multiplications to make than they spare so many rows."""
        d_model, d_mlp = self._down.shape
        return rows * ((1 + len(self._inward)) * d_mlp - d_model) > d_mlp * d_model

    @contextmanager
    def matrices(self) -> Generator[None]:
        """Inside, gradients go back through matrices."""
        slopes = [s.flatten(0, -2).unsqueeze(-1) for s in self._slopes]
        d_model = len(self._down)
        made = self._down.new_empty(len(slopes[0]), d_model, d_model)
        for token in range(len(made)):
            wide = slopes[0][token] * self._inward[0]
            for slope, weight in zip(slopes[1:], self._inward[1:], strict=True):
                wide.addcmul_(slope[token], weight)
            torch.mm(self._down, wide, out=made[token])
        self._matrices = made.view(*self._slopes[0].shape[:-1], d_model, d_model)
        try:
            yield
        finally:
            self._matrices = None


@contextmanager
def mlps_folded(model: HookedModel) -> Generator[dict[int, FoldedMLP]]:
    """Inside, a pass puts the MLPs that can be folded into what is given, by block."""
    found: dict[int, FoldedMLP] = {}
    path = model.family.down or ""
    with ExitStack() as stack:
        for number, block in enumerate(model.blocks):
            inside = dict(block.named_modules())
            mlp, down = inside.get(path.rpartition(".")[0]), inside.get(path)
            if mlp is not None and mlp is not block and type(down) is nn.Linear:
                stack.enter_context(instead(mlp, _folding(mlp, down, found, number)))
        yield found


def _folding(
    mlp: nn.Module, down: nn.Linear, found: dict[int, FoldedMLP], number: int
) -> Callable[[Forward], Forward]:
    # An adapted or quantised projection is of another type, and does more than multiply.
    inward = [m for m in mlp.modules() if type(m) is nn.Linear and m is not down]
    shapes = {tuple(m.weight.shape) for m in inward}
    alike = shapes == {(down.in_features, down.out_features)}

    def wrap(usual: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) != 1 or not (alike and args[0].requires_grad):
                return usual(*args, **kwargs)
            given: list[Tensor] = []
            projected: list[Tensor] = []
            read: list[Tensor] = []
            written: list[Tensor] = []

            def apart(here: Tensor) -> Tensor:
                projected.append(here.detach().requires_grad_())
                return projected[-1]

            alone = args[0].detach()
            with ExitStack() as stack:
                for projection in inward:
                    stack.enter_context(before(projection, given.append))
                    stack.enter_context(after(projection, apart))
                stack.enter_context(before(down, read.append))
                stack.enter_context(after(down, written.append))
                out = usual(alone)
            whole = (
                len(given) == len(inward)
                and all(each is alone for each in given)
                and len(written) == 1
                and out is written[0]
            )
            slopes = _slopes(read[0], projected) if whole else None
            if slopes is None:
                return usual(*args)
            found[number] = FoldedMLP(down.weight, [m.weight for m in inward], slopes)
            return _Replayed.apply(args[0], out.detach(), found[number])

        return forward

    return wrap


def _slopes(read: Tensor, projected: Sequence[Tensor]) -> list[Tensor] | None:
    """By how much each number follows those at its place; None where it follows others too."""
    signs = torch.ones_like(read)
    signs[..., ::2] = -1
    slopes = torch.autograd.grad(read, projected, torch.ones_like(read), retain_graph=True)
    turned = torch.autograd.grad(read, projected, signs)
    # A sign changes no rounding: what follows its own place only is the same to the bit.
    same = all(torch.equal(a * signs, b) for a, b in zip(slopes, turned, strict=True))
    return list(slopes) if same else None


class _Replayed(torch.autograd.Function):
    """An output that is known, with a way back."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, out: Tensor, folded: FoldedMLP) -> Tensor:
        ctx.folded = folded
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.folded.back(gradients[0]), None, None


class _ByToken(torch.autograd.Function):
    """Vectors by a matrix of each token. Rows that come with them share it."""

    @staticmethod
    def forward(vectors: Tensor, matrices: Tensor) -> Tensor:
        return (vectors.unsqueeze(-2) @ matrices).squeeze(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is differentiated twice."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, int]:
        vectors, matrices = args
        # torch's own way would copy the matrices for every row; these are never many themselves.
        rows = vectors.unsqueeze(-2) if in_dims[0] is None else vectors.movedim(in_dims[0], -2)
        return (rows @ matrices).expand(*rows.shape[:-2], info.batch_size, -1), rows.ndim - 2
