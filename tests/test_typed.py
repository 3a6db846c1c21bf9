"""Public functions refuse arguments of the wrong type before anything runs."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator

import kit
import numpy as np
import pytest
import torch

import xlens
from xlens import Prompt
from xlens.checks import WrongType, arguments_of, typed

ROOMS = [
    *("engine", "models", "prompts", "lens", "tasks.words", "tasks.choices", "tasks.xmrc"),
    *("subspace", "consistency", "phases", "steering", "studies", "served", "stats", "testbed"),
    *("report", "figures", "corpus", "tasks.facts", "tasks.sentences", "acquisition"),
    *("gain", "neurons", "precision", "training", "tasks.running_text", "tasks.alignment"),
]
QUIET = {"progress": False}
PROMPTS = [Prompt(f"{tag} {n}", tag, str(n)) for n in range(2) for tag in ("en", "de")]
pytestmark = pytest.mark.usefixtures("as_users_have_it")


def public() -> Iterator[tuple[str, Callable]]:
    for room in ROOMS:
        module = importlib.import_module(f"xlens.{room}")
        for name in module.__all__:
            function = getattr(module, name)
            plain = inspect.isfunction(function) and not hasattr(function, "cache_info")
            if plain and not inspect.isgeneratorfunction(inspect.unwrap(function)):
                yield f"{room}.{name}", function


class Odd:
    """No argument is such a thing."""


CELLS = [
    (name, argument, hint)
    for name, function in public()
    for argument, hint in arguments_of(inspect.unwrap(function)).items()
]


@pytest.mark.parametrize("name", sorted({name for name, _ in public()}))
def test_every_public_function_checks(name):
    function = dict(public())[name]
    # Not what it is made of: the tests put more around it.
    assert getattr(function, "is_typed", False), "it lacks @typed"


@pytest.mark.parametrize(("name", "argument", "hint"), CELLS)
def test_no_argument_is_anything(name, argument, hint):
    plain = hint.accepted.replace("Mapping[str, Any]", "")
    if re.search(r"\b(Any|Hashable)\b", plain):
        return
    for wrong in (Odd(), [Odd()], {3: Odd()}, object):
        with pytest.raises(WrongType, match=rf"^{argument}(\[\d\])? of \w+: .* given; accepted"):
            hint.check(wrong)
    if "None" not in hint.accepted:
        with pytest.raises(WrongType, match=r"None \(NoneType\) given"):
            hint.check(None)


@pytest.mark.parametrize(
    ("name", "argument", "hint"), [cell for cell in CELLS if "one of " in cell[2].accepted]
)
def test_only_the_words_of_a_literal_are_taken(name, argument, hint):
    words = re.findall(r"'([^']+)'", hint.accepted)
    assert len(words) > 1
    with pytest.raises(WrongType, match=rf"^{argument} of \w+: 'no such' .* one of '{words[0]}'"):
        hint.check("no such")
    for word in words:
        hint.check(word)


@pytest.mark.parametrize(
    ("name", "argument", "hint"), [cell for cell in CELLS if cell[1] == "seed"]
)
def test_a_seed_is_one(name, argument, hint):
    for wrong in (-1, 2**63, -(10**30)):
        with pytest.raises(ValueError, match=r"seed is -?\d+.*from 0 to"):
            hint.check(wrong)
    hint.check(0)


@pytest.mark.parametrize(
    ("hint", "wrong"),
    [
        (int, [True, 1.5, "1", [1]]),
        (bool, [1, "yes", None]),
        (str, [b"a", 5, ["a"]]),
        (float, ["1.5", True]),
        (list[str], ["ab", ["a", 5], [None], {"a": 1}]),
    ],
)
def test_kinds(hint, wrong):
    def takes(value, *, other: int = 0):
        return value

    takes.__annotations__["value"] = hint
    checked = typed(takes)
    for value in wrong:
        with pytest.raises(WrongType, match=r"^value.* of .*takes: "):
            checked(value)
    with pytest.raises(
        TypeError, match=r"takes\(\) missing 1 required positional argument: 'value'"
    ):
        checked()


def test_what_numpy_and_torch_hold_counts():
    @typed
    def takes(whole: int, several: list[int] | None = None, share: float = 0.0):
        return whole, several, share

    assert takes(np.int64(3), np.arange(2))[0] == 3
    takes(torch.tensor(3), torch.tensor([1]), np.float32(0.5))
    with pytest.raises(WrongType):
        takes(np.float64(3))


CALLS = {
    "layers": [True, 1.5, None, [1.0], [[1]], "1"],
    "slots": [5, None, ["last", 5], [None]],
    "token_budget": ["5", 5.5, True],
    "prepend_bos": ["yes", 1],
    "site": [5, None],
    "store": [5, ["a"]],
    "dtype": [32, int],
}


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n, ws in CALLS.items() for w in ws])
def test_a_harvest(name, wrong, monkeypatch):
    model = kit.fresh("gpt2")
    monkeypatch.setattr(model, "provenance", lambda *_: pytest.fail("it went on"))
    with pytest.raises(ValueError, match=f"{name}.* given; accepted is|Unknown layer in '1'"):
        xlens.harvest(model, PROMPTS, **{name: wrong}, **QUIET)


def test_a_text_is_no_sequence_of_texts(tmp_path):
    model = kit.fresh("gpt2")
    for wrong in ("ab", ["a", 5], [None], None, {"0": "ab"}):
        with pytest.raises(WrongType, match=r"candidates(\[\d\])? of score: "):
            xlens.score(model, PROMPTS, wrong, **QUIET)
    with pytest.raises(WrongType, match=r"languages of read_choices: 'en' .* Write \['en'\]"):
        xlens.tasks.choices.read_choices(tmp_path, languages="en")
    with pytest.raises(ValueError, match="sequence of language tags, got 'en'"):
        xlens.cldr_words("en")
    acts = xlens.harvest(model, PROMPTS, **QUIET)
    with pytest.raises(ValueError, match=r"languages.*'de'"):
        acts.select(languages="de")


def test_what_is_handed_out_is_frozen():
    found = 0
    for each in pkgutil.walk_packages(xlens.__path__, "xlens."):
        module = importlib.import_module(each.name)
        for name, kind in vars(module).items():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                assert name.startswith("_") or kind.__dataclass_params__.frozen, (
                    f"{each.name}.{name}"
                )
                found += 1
    assert found > 150
