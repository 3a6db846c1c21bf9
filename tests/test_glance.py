"""Whether a model's weights changed: seen at a glance where results stay in memory, at a look else.

Numbers that are kept are found by a look at all weights; a change that a glance may miss is seen
by one of the next, or when a look is due.
"""

import kit
import pytest
import torch
from torch import nn

from xlens.engine import harvest
from xlens.models import fingerprint
from xlens.models.fingerprint import _LINE, _TURN, _bit_sum, _bit_sums
from xlens.prompts import Prompt
from xlens.store import Store

PROMPTS = [Prompt("the house is red", "en", "0"), Prompt("a flower", "en", "1")]


class Clock:
    """Goes on by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """A look, which seems to take a millisecond, is due a second after one."""
    clock = Clock()
    monkeypatch.setattr(fingerprint, "perf_counter", clock)
    monkeypatch.setattr(fingerprint, "_DUE", 1_000)
    return clock


@pytest.fixture
def model(clock):
    found = kit.fresh("llama")
    assert found.fingerprint
    return found


def stamped(model, **more) -> str:
    return harvest(model, PROMPTS, progress=False, **more).fingerprint


def head(model) -> torch.Tensor:
    return model.hf_model.get_parameter("lm_head.weight")


def test_calls_on_a_model_that_stays_look_at_a_sample(model, monkeypatch):
    looks: list[object] = []
    monkeypatch.setattr(fingerprint, "_bit_sums", lambda t: looks.append(t) or _bit_sums(t))
    assert stamped(model) == stamped(model) and not looks
    assert stamped(model) == model.fingerprint and looks


# --- what a glance sees ---


def step_of_an_optimiser(model):
    optimiser = torch.optim.AdamW([head(model)], lr=1e-6)
    head(model).grad = torch.zeros_like(head(model))
    head(model).grad[3, 5] = 1
    optimiser.step()


def one_element(model):
    with torch.no_grad():
        head(model)[3, 5] += 1


def another_parameter(model):
    weight = head(model).detach().clone()
    weight[3, 5] += 1
    model.hf_model.lm_head.weight = nn.Parameter(weight)


def parameter_at_the_same_address(model):
    head(model).data[3, 5] += 1  # and what counts its writes begins anew
    model.hf_model.lm_head.weight = nn.Parameter(head(model).data)


def other_data(model):
    weight = head(model).detach().clone()
    weight[3, 5] += 1
    head(model).data = weight


def every_element_through_data(model):
    head(model).data.mul_(1.001)


def a_column_through_data(model):
    head(model).data[:, 7] = 0


def rows_of_eight_kilobytes_through_data(model):
    head(model).data[100:132] += 1
    assert 32 * head(model)[0].numel() * 4 >= 8 * 2**10


def rows_exchanged_through_data(model):
    head(model).data.copy_(head(model).data.flip(0))


def in_inference_mode(model):
    with torch.inference_mode():
        head(model).mul_(1.5)


def one_element_of_a_small_tensor(model):
    model.hf_model.model.norm.weight.data[5] += 1e-3


def an_adapter(model):
    pytest.importorskip("peft")
    from peft import LoraConfig

    model.hf_model.add_adapter(
        LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False)
    )


SEEN = [step_of_an_optimiser, one_element, another_parameter, parameter_at_the_same_address]
SEEN += [other_data, every_element_through_data, a_column_through_data]
SEEN += [rows_of_eight_kilobytes_through_data, rows_exchanged_through_data, in_inference_mode]
SEEN += [one_element_of_a_small_tensor, an_adapter]


@pytest.mark.parametrize("change", SEEN)
def test_what_the_next_call_sees(change, model):
    before = stamped(model)
    change(model)
    after = stamped(model)
    assert after != before and after == model.fingerprint


def test_an_adapter_merged_and_taken_apart_again(model):
    pytest.importorskip("peft")
    an_adapter(model)
    on = stamped(model)
    module = model.blocks[0].mlp.down_proj
    module.merge()
    merged = stamped(model)
    assert merged != on and merged == model.fingerprint
    module.unmerge()
    assert stamped(model) == model.fingerprint != merged


# --- what a glance may miss ---


def element(model):
    head(model).data[3, 5] += 1  # torch counts no writes through .data


def test_one_element_through_data_is_seen_by_one_of_the_next_calls(model):
    before = stamped(model)
    element(model)
    stamps = [stamped(model) for _ in range(_TURN)]
    assert stamps[0] == before, "no sample held it: choose another element for this test"
    assert stamps[-1] == model.fingerprint != before


def test_it_is_seen_when_a_look_is_due(model, clock):
    before = stamped(model)
    element(model)
    assert stamped(model) == before
    clock.now += 1
    assert stamped(model) == model.fingerprint != before


def test_whoever_asks_for_the_fingerprint_sees_it(model):
    before = stamped(model)
    element(model)
    assert model.fingerprint != before


def test_numbers_that_are_kept_are_those_of_the_weights_as_they_are(model, tmp_path):
    def states(**more):
        return harvest(model, PROMPTS, layers="all", progress=False, store=tmp_path, **more)

    words = model.hf_model.get_input_embeddings().weight
    row = states().meta["tokens"][0][-1]
    before = states()
    words.data[row, 5] += 1
    with kit.passes(model) as passes:
        after = states()
    assert passes and after.fingerprint == model.fingerprint != before.fingerprint
    assert not torch.equal(after.get("last"), before.get("last"))
    assert len(Store(tmp_path).entries()) == 2


# --- sums ---


@pytest.mark.parametrize("n", [7, 10_000, 136 * _TURN, 131_072 + 33, 300_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_sum_of_a_turn_is_that_of_a_look(n, dtype, monkeypatch):
    monkeypatch.setattr(fingerprint, "_SLAB", 2 * _TURN)
    tensor = torch.randn(n).to(dtype)
    sums = _bit_sums(tensor)
    assert sums == tuple(int(_bit_sum(tensor, turn)) for turn in range(len(sums)))
    tensor[-1] += 1
    assert _bit_sums(tensor) != sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_element_changes_its_sign_unseen(dtype):
    tensor = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = _bit_sums(tensor)
    # The highest bit of a word in each of two lines of one turn: alone they would add to nothing.
    words = 8 // tensor.itemsize
    two = [words - 1, words * _LINE * _TURN + words - 1]
    for chosen in (*range(0, 20_000, 641), two, slice(1, None, 2), slice(None)):
        changed = tensor.clone()
        changed[chosen] *= -1
        assert _bit_sums(changed) != before, chosen


def test_an_empty_tensor_has_a_sum():
    assert _bit_sums(torch.empty(0)) == (0,) == (int(_bit_sum(torch.empty(0), 3)),)
