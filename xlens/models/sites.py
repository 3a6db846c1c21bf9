"""Where a model has its sites (`xlens.sites`), and how a pass is read and changed there.

A site of a block is a `Place`. Places and residual points are numbers in the order in which a pass
comes by, so that what is true of points (the deepest one ends a pass, what lies below a change is
the plain run's) is true of places.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from xlens.checks import typed
from xlens.errors import ModelError
from xlens.models.hooked import HookedModel
from xlens.models.hooks import See, after, at_point, before, ending
from xlens.sites import INSIDE, RESID, Site, has_heads, known_site


class Place(float):
    """A site of a block, as a number: `int(place)` is the block and the point that goes in."""

    site: str

    def __new__(cls, site: str, block: int) -> "Place":
        """The place of a site in a block."""
        place = super().__new__(cls, block + (1 + list(INSIDE).index(site)) / (1 + len(INSIDE)))
        place.site = site
        return place

    @property
    def record(self) -> Site:
        """What the site is."""
        return INSIDE[self.site]

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.site, int(self)

    def __repr__(self) -> str:
        return f"blocks.{int(self)}.{self.site}"


Point = int | Place
# Sees the states at a point or place; what it returns, if anything, takes their place.
Keep = Callable[[Point, Tensor], Tensor | None]


def offered(model: HookedModel) -> dict[str, tuple[int, ...]]:
    """The sites that a model has, and in which blocks (of `resid`, at which points)."""
    found = {RESID: tuple(range(model.n_layers + 1))}
    for site in INSIDE:
        blocks = tuple(n for n, b in enumerate(model.blocks) if _module(model, b, site) is not None)
        if blocks:
            found[site] = blocks
    return found


def places(model: HookedModel, site: str, layers: str | int | Sequence[int]) -> tuple[Point, ...]:
    """The places of a site that `layers` names, ascending.

    Args:
        model: Has them.
        site: One of `SITES`.
        layers: Points of `resid`; blocks 0..n_layers-1 of the others, negatives from the top, "all"
            for every block that has it.

    Raises:
        ValueError: an unknown site, one that the family or a block lacks, a block that isn't there.
    """
    if site == RESID:
        return model.layers(layers)
    have = _require(model, site)
    if layers == "all":
        return tuple(Place(site, block) for block in have)
    asked = (layers,) if isinstance(layers, int) else layers
    n = model.n_layers
    if isinstance(asked, str) or not all(-n <= layer < n for layer in asked):
        raise ModelError(
            f"Unknown layer in {layers!r}: at site {site!r} {model.name} has blocks 0 to {n - 1}, "
            "negatives count from the top, and 'all' takes every one that has it."
        )
    blocks = sorted({layer % n for layer in asked})
    if lacking := [block for block in blocks if block not in have]:
        why = _why_not(model, model.blocks[lacking[0]], site)
        raise ModelError(
            f"Block {lacking[0]} of {model.name} has no {site!r}{why}; blocks {list(have)} have."
        )
    return tuple(Place(site, block) for block in blocks)


def width(model: HookedModel, site: str) -> int:
    """How many numbers a token has at a site.

    Raises:
        ValueError: the model lacks it, or its blocks differ in it.
    """
    return width_at(model, places(model, site, "all"))


def width_at(model: HookedModel, points: Sequence[Point]) -> int:
    """How many numbers a token has at these points or places.

    Raises:
        ValueError: they differ in it.
    """
    found = {_width(model, point): point for point in points}
    if len(found) > 1:
        shown = ", ".join(f"{n} at {point!r}" for n, point in sorted(found.items()))
        raise ModelError(
            f"The blocks of {model.name} differ in width ({shown}): ask for blocks of one width "
            "at a time."
        )
    return next(iter(found), model.d_model)


def _width(model: HookedModel, point: Point) -> int:
    if not isinstance(point, Place) or point.record.width is None:
        return model.d_model
    path = getattr(model.family, point.record.width)
    assert path is not None  # `places` has seen to it
    return _inputs(_at(model.blocks[int(point)], path))


def heads_at(model: HookedModel, site: str) -> int | None:
    """How many heads lie side by side at a site; None where none do."""
    return n_heads(model) if has_heads(site) else None


def n_heads(model: HookedModel) -> int:
    """Query heads, side by side at site `z`."""
    text = model.config.get_text_config()
    for name in ("num_attention_heads", "n_head", "num_heads", "attention_heads"):
        if isinstance(n := getattr(text, name, None), int):
            return n
    raise ModelError(f"The config of {model.name} does not say how many heads there are.")


@typed
def head_units(model: HookedModel, heads: int | Sequence[int]) -> list[int]:
    """The units of some heads at site `z`.

    Raises:
        ValueError: a head that is not there; a model without heads.
    """
    _require(model, "z")
    n, asked = n_heads(model), [heads] if isinstance(heads, int) else list(heads)
    if not asked:
        raise ModelError(f"At least one head is needed: {model.name} has heads 0 to {n - 1}.")
    if wrong := [head for head in asked if not 0 <= head < n]:
        raise ModelError(f"There is no head {wrong[0]}: {model.name} has heads 0 to {n - 1}.")
    size = width(model, "z") // n
    return [unit for head in asked for unit in range(head * size, (head + 1) * size)]


def activation_site(model: HookedModel) -> str:
    """Where the MLP's activation function gives its output: `mlp_gate` if gated, else `mlp_post`.

    Raises:
        ValueError: the family has no MLP whose activation can be seen.
    """
    site = "mlp_gate" if model.family.gated else "mlp_post"
    _require(model, site)
    return site


@contextmanager
def visiting(
    model: HookedModel,
    points: Sequence[Point],
    keep: Keep,
    *,
    stop: bool = True,
    everywhere: bool = False,
) -> Generator[None]:
    """Call `keep(point, states)` at residual points and places, as `hooks.residual` does.

    States are `[batch, pos, width]`. A tensor that `keep` returns takes their place. With `stop`
    nothing above the deepest point is computed.
    """
    with ExitStack() as stack:
        stop_here = stack.enter_context(ending()) if stop else None
        deepest = max(points, default=0)
        shapes: dict[int, tuple[int, int]] = {}

        def at(point: Point) -> See:
            def see(states: Tensor) -> Tensor | None:
                changed = keep(point, states)
                if stop_here is not None and point == deepest:
                    stop_here()
                return changed

            return see

        for block in sorted({int(p) for p in points if isinstance(p, Place)}):
            stack.enter_context(_shape_of(model.blocks[block], block, shapes, everywhere))
        for point in points:
            if isinstance(point, Place):
                block = model.blocks[int(point)]
                module = _module(model, block, point.site)
                assert module is not None  # `places` has seen to it
                put = before if point.record.side == "in" else after
                scaled = _as_added(at(point), _scale(model, block, point.site))
                see = _in_rows(scaled, shapes, int(point))
                stack.enter_context(put(module, see, everywhere=everywhere))
            else:
                stack.enter_context(at_point(model.blocks, point, at(point), everywhere=everywhere))
        yield


def _module(model: HookedModel, block: nn.Module, site: str) -> nn.Module | None:
    path = getattr(model.family, INSIDE[site].module)
    if path is None:
        return None
    try:
        return _at(block, path)
    except AttributeError:
        return None


def _at(block: nn.Module, path: str) -> nn.Module:
    return block.get_submodule(path)


def _require(model: HookedModel, site: str) -> tuple[int, ...]:
    known_site(site)
    have = offered(model)
    if site not in have:
        raise ModelError(
            f"{model.name} ({model.family.name}) has no site {site!r}"
            f"{_why_not(model, model.blocks[0], site)}; it has {', '.join(have)}."
        )
    return have[site]


def _why_not(model: HookedModel, block: nn.Module, site: str) -> str:
    experts = model.family.experts
    if experts is None or not INSIDE[site].of_expert:
        return ""
    try:
        _at(block, experts)
    except AttributeError:
        return ""
    return f" (its MLP is a router's experts, {experts}, of which a token sees a few)"


def _scale(model: HookedModel, block: nn.Module, site: str) -> float:
    scale = INSIDE[site].scale
    name = scale and getattr(model.family, scale)
    return float(getattr(block, name)) if name else 1.0


def _as_added(see: See, scale: float) -> See:
    """Where the block multiplies what a module gives, what is seen is the product."""
    if scale == 1.0:
        return see

    def wrapped(states: Tensor) -> Tensor | None:
        changed = see(states * scale)
        return None if changed is None else changed / scale

    return wrapped


def _in_rows(see: See, shapes: dict[int, tuple[int, int]], block: int) -> See:
    """Some families run their MLP over all tokens in one row."""

    def wrapped(states: Tensor) -> Tensor | None:
        changed = see(states.reshape(*shapes[block], states.shape[-1]))
        return None if changed is None else changed.reshape(states.shape)

    return wrapped


def _shape_of(
    module: nn.Module, block: int, shapes: dict[int, tuple[int, int]], everywhere: bool
) -> Any:
    def see(states: Tensor) -> None:
        shapes[block] = (states.shape[0], states.shape[1])

    return before(module, see, everywhere=everywhere)


def _inputs(module: nn.Module) -> int:
    for name in ("in_features", "nx"):  # nn.Linear and adapters on it; Conv1D
        if isinstance(n := getattr(module, name, None), int):
            return n
    weight: Any = next(module.parameters())  # a norm
    return int(weight.shape[-1])
