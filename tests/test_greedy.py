"""The most probable token by a shortlist: the one that all logits name, whatever the weights."""

import pytest
import torch
from torch import nn

from xlens.engine import greedy
from xlens.engine.greedy import Greedy, shortens
from xlens.models import Readout

D, N = 64, greedy.LEAST + 123


def readout(weight: torch.Tensor, softcap: float | None = None, scale: float = 1.0) -> Readout:
    norm, head = nn.Identity(), nn.Linear(D, len(weight), bias=False, dtype=weight.dtype)
    with torch.no_grad():
        head.weight.copy_(weight)
    return Readout(norm, head, softcap=softcap, logit_scale=scale, fingerprint=lambda: "")


def drawn(rows: int, factor: float = 1.0, seed: int = 0) -> torch.Tensor:
    return factor * torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))


def exactly(read: Readout, states: torch.Tensor) -> list[int]:
    """The first of the best, all logits summed in fp64, rounded once."""
    raw = states.double() @ read.W_U.double()
    logits = read._transform(raw.float())
    return [int((row == row.max()).nonzero()[0]) for row in logits]


def ends(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and states of a kind."""
    weight, states = drawn(N), drawn(12, seed=1)
    if kind == "ties":  # every item four times, and near it others
        weight[: N // 4] *= 0.5
        weight = weight[torch.arange(N) % (N // 4)]
    elif kind == "neighbours":  # the best ones differ in the last digit of a weight
        weight[::97] = 3 * states[0] + 2.0**-8 * drawn(len(weight[::97]), seed=2)
    elif kind == "tiny":
        weight *= 1e-22
    elif kind == "denormal":
        weight *= 1e-38
    elif kind == "huge":
        weight *= 1e18
    elif kind == "overflowing":
        weight *= 1e37
        states *= 1e3
    elif kind == "uneven":
        weight *= torch.logspace(-12, 6, N)[:, None]
    elif kind == "nothing":
        weight.zero_()
    return weight.bfloat16(), states


needs_bf16 = pytest.mark.skipif(not greedy.multiplies_bf16(), reason="no products in bf16 here")


@needs_bf16
@pytest.mark.parametrize("softcap", [None, 30.0, 1e-3])
@pytest.mark.parametrize(
    "kind", ["plain", "ties", "neighbours", "tiny", "denormal", "huge", "uneven", "nothing"]
)
def test_the_same_token_as_by_all_logits(kind, softcap):
    weight, states = ends(kind)
    read = readout(weight, softcap)
    assert shortens(read)
    best = Greedy(read)
    for some in (states, states[:1], 1e-3 * states, 40 * states):
        assert best(some).tolist() == exactly(read, some)


@needs_bf16
def test_few_are_computed_exactly_and_rows_that_say_nothing_as_before(monkeypatch):
    weight, states = ends("plain")
    read, pairs, rows = readout(weight, 30.0, 0.7), [], []
    exact, all_logits = Readout.exactly, greedy.whole

    def counted(self, normed, ids):
        pairs.append(len(ids))
        return exact(self, normed, ids)

    def whole(read, normed):
        rows.append(len(normed))
        return all_logits(read, normed)

    monkeypatch.setattr(Readout, "exactly", counted)
    monkeypatch.setattr(greedy, "whole", whole)
    best = Greedy(read)
    wanted = exactly(read, states)
    assert best(states).tolist() == wanted
    assert sum(pairs) < 30 * len(states) and not rows
    # A row that can't be read costs the others nothing.
    states[3], states[5] = torch.nan, torch.inf
    found = best(states).tolist()
    assert [found[n] for n in (3, 5)] == [-1, -1] and rows == [2]
    assert [t for n, t in enumerate(found) if n not in (3, 5)] == [
        t for n, t in enumerate(wanted) if n not in (3, 5)
    ]


@needs_bf16
@pytest.mark.parametrize("kind", ["plain", "huge", "tiny", "uneven"])
def test_norms_are_upper_bounds(kind):
    weight, _ = ends(kind)
    bound = greedy._norms(weight, N + 5)[:N]
    exact = weight.double().norm(dim=1)
    assert (bound >= exact).all() and (bound <= 1.03 * exact + 1e-17).all()


@needs_bf16
def test_logits_beyond_bf16_are_left_to_all_logits():
    weight, states = ends("overflowing")
    read = readout(weight)
    assert Greedy(read)(states).tolist() == greedy.whole(read, states).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_weights_are_read_whole(dtype):
    read = readout(drawn(N).to(dtype))
    assert not shortens(read)
    states = drawn(3, seed=1)
    assert Greedy(read)(states).tolist() == exactly(read, states)


def test_where_torch_cannot_say_all_logits_are_computed(monkeypatch):
    assert greedy.multiplies_bf16() in (True, False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert greedy.multiplies_bf16() is False
