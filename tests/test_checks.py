"""Wrong types are refused by every study, by prompts and on the command line."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import xlens
from xlens import stats
from xlens.checks import WrongType
from xlens.cli import main
from xlens.prompts import Prompt, Prompts, choose_demonstrations
from xlens.records.plain_yaml import read_yaml
from xlens.studies import LensStudy, ProcessStudy, ReadingStudy, SteeringStudy
from xlens.studies.serving import Serving
from xlens.testbed.planted import planted_activations

STUDIES = (LensStudy, ReadingStudy, SteeringStudy, ProcessStudy, Serving)


pytestmark = pytest.mark.usefixtures("as_users_have_it")


class Odd:
    """No option is such a thing."""


@pytest.mark.parametrize("study", STUDIES)
def test_every_field_of_every_study_is_checked(study):
    for field in fields(study):
        with pytest.raises(WrongType, match=rf"{study.__name__}\.{field.name}: "):
            study(**{field.name: Odd()})


@pytest.mark.parametrize(
    ("study", "given", "said"),
    [
        (SteeringStudy, {"steer": "lda"}, r"'lda' \(str\) given; .*Write \['lda'\]"),
        (SteeringStudy, {"steer_languages": "de"}, r"Write \['de'\]"),
        (LensStudy, {"controls": "shuffled"}, r"Write \['shuffled'\]"),
        (LensStudy, {"n_items": 12.7}, "12.7 .float."),
        (LensStudy, {"n_items": "40"}, "'40' .str."),
        (LensStudy, {"seed": True}, "True .bool. given; accepted is int.*in quotes"),
        (LensStudy, {"pivot": None}, "None .NoneType."),
        (ReadingStudy, {"questions": (False,)}, r"questions\[0\]: False.*YAML"),
        (ReadingStudy, {"oracle": "yes"}, "'yes' .str. given; accepted is bool"),
        (SteeringStudy, {"layers": (1.5,)}, r"layers\[0\]: 1.5"),
    ],
)
def test_types_are_not_bent(study, given, said):
    with pytest.raises(WrongType, match=said):
        study(**given)


def test_what_means_the_same_is_taken():
    study = SteeringStudy(layers=[1, "2-3"], strengths=[1, np.float64(2)], seed=np.int64(3))
    assert study.bands == (1, (2, 3)) and study.strengths == (1, 2) and type(study.seed) is int
    assert issubclass(WrongType, TypeError) and issubclass(WrongType, ValueError)


@pytest.mark.parametrize("name", ["text", "language", "id"])
@pytest.mark.parametrize("value", [None, 1, 1.5, True, ["a"], {"a": 1}])
def test_prompts_are_made_of_strings(name, value):
    with pytest.raises(WrongType, match=f"{name} of a prompt: .*accepted is a string"):
        Prompt(**({"text": "a", "language": "en", "id": "1"} | {name: value}))


def test_prompts_name_what_is_odd():
    with pytest.raises(ValueError, match=r"Prompt '1' \(en\) holds half a character, U\+D83D"):
        Prompt("a \ud83d", "en", "1")
    with pytest.raises(WrongType, match=r"span 'w': .0.5, 1. .tuple. given; accepted"):
        Prompt("abc", "en", "1", {"w": (0.5, 1)})  # type: ignore[dict-item]
    for value in (None, [1], {"a": 1}):
        with pytest.raises(WrongType, match="meta 'm'"):
            Prompt("abc", "en", "1", meta={"m": value})


@pytest.mark.parametrize("name", ["id", "language", "text", "n_tokens", "tokens"])
def test_meta_never_overwrites_what_a_harvest_says(name):
    with pytest.raises(ValueError, match=f"meta can't be called '{name}'"):
        Prompt("abc", "en", "1", meta={name: "x"})


def test_meta_of_mixed_types_is_refused_before_a_run():
    """Such a table can't be saved once the harvest is done."""
    some = [Prompt("a", "en", str(n), meta={"m": m}) for n, m in enumerate([1, 2.5, np.int64(3)])]
    assert len(Prompts(some)) == 3
    for odd, kind in (("x", "text"), (True, "truth value")):
        with pytest.raises(ValueError, match=f"Meta 'm' is a number in prompt '0'.*a {kind} in"):
            Prompts([*some, Prompt("a", "en", "9", meta={"m": odd})])


def test_a_text_is_no_sequence_of_texts(tiny_gpt2_dir):
    prompts = Prompts([Prompt("a", "en", "1")])
    for given in ({"ids": "1"}, {"languages": "en"}):
        with pytest.raises(WrongType, match=r"accepted is a sequence of .*Write \["):
            prompts.select(**given)
    with pytest.raises(ValueError, match="Unknown layer in True"):
        xlens.load(tiny_gpt2_dir).layers(True)


# --- the command line ---


def fails(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_whole_numbers_are_not_rounded(tmp_path: Path, capsys):
    said = fails(capsys, "lens", "none", "--from", "fr", "--to", "de", "--n-items", "12.7")
    assert "--n-items: '12.7' is no whole number" in said
    config = tmp_path / "c.yaml"
    config.write_text("lens:\n  n_items: 12.7\n  from: fr\n  to: de\n")
    assert "'12.7' is no whole number" in fails(capsys, "--config", str(config), "lens", "none")
    said = fails(capsys, "process", "none", "--n-items", "1.")
    assert "'1.' is no whole number" in said


def test_yaml_means_what_it_says(tmp_path: Path, capsys):
    assert read_yaml("a: [no, yes, on, true, FALSE]") == {"a": ["no", "yes", "on", True, False]}
    config = tmp_path / "c.yaml"
    config.write_text("choices:\n  languages: [no, de]\n  languages: [en]\n")
    assert "'languages' stands there twice" in fails(
        capsys, "--config", str(config), "choices", "m"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lens: {n_items: 3}\nlens: {n_items: 4}", "'lens' stands there twice"),
        ("lens: &a {n_items: 3}\nchoices: *a", "anchors and aliases"),
        (
            "a0: &a0 [x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
            "anchors and aliases",
        ),
        ("lens: " + "[" * 2000, "nested too deeply"),
        ("lens: " + "{a: " * 2000, "nested too deeply"),
        ("lens: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("lens: {n_items: " + "9" * 5000 + "}", "limit"),
        (
            "".join(f"k{n}: 1\n" for n in range(3000)),
            "'k0', 'k1', 'k10', 'k100', 'k1000': options stand",
        ),
        ("lens: {task: " + "v" * 300_000 + "}", "Invalid value"),
        ("[1, 2]: 3", "unhashable"),
        ('lens: "\0"', "unacceptable character"),
        ("---\nlens: {}\n---\nlens: {}", "single document"),
        ("lens:\n", "must be a mapping"),
        ("lens: {n_items: 1:30}", "1:30"),
        ("lens: {n_items: 2001-01-01}", "2001-01-01"),
        ("lens: {n_items: .inf}", "inf"),
        ("lens: {seed: -1}", "seed is -1"),
    ],
)
def test_yaml_that_is_broken_or_means_harm(tmp_path: Path, capsys, text, said):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    told = fails(capsys, "--config", str(config), "lens", "none", "--from", "fr", "--to", "de")
    assert said in told and len(told) < 2100


def test_numbers_in_yaml_are_those_of_version_1_2():
    found = read_yaml("[010, 0x1F, 0o17, +3, -4, 1_000, 1e3, .5, 2., ~, null, 2001-01-01, <<]")
    assert found == [10, 31, 15, 3, -4, "1_000", 1000.0, 0.5, 2.0, None, None, "2001-01-01", "<<"]


SEEDS = {
    "Resampling": lambda seed: stats.Resampling(seed=seed),
    "generator": lambda seed: stats.generator(seed, 1),
    "Prompts.sample": lambda seed: Prompts([Prompt("a", "en", "1")]).sample(1, seed=seed),
    "choose_demonstrations": lambda seed: choose_demonstrations(["a", "b"], "c", 1, seed=seed),
    "planted_activations": lambda seed: planted_activations(seed=seed),
    **{kind.__name__: lambda seed, kind=kind: kind(seed=seed) for kind in STUDIES[:4]},
}


@pytest.mark.parametrize("seed", [-1, True, 1.5, "1", None, 2**63, np.int64(-3), np.float64(2.0)])
@pytest.mark.parametrize("name", SEEDS)
def test_seeds_are_whole_numbers(name, seed):
    with pytest.raises(ValueError, match=r"seed( of [A-Za-z_.]+)?( is|: )"):
        SEEDS[name](seed)


def test_there_is_one_source_of_chance():
    """What draws by itself would take seeds that the others refuse."""
    for path in Path(xlens.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name != "draws.py":
            assert "default_rng(" not in text and "RandomState(" not in text, path


@pytest.mark.parametrize("command", ["demo", "lens", "choices", "process", "xmrc"])
@pytest.mark.parametrize("seed", ["-1", "1.5", "x", "", "99999999999999999999"])
def test_every_command_refuses_what_is_no_seed(capsys, command, seed):
    rest = {"demo": (), "lens": ("--from", "de", "--to", "fr"), "process": ("--languages", "de")}
    given = () if command == "demo" else ("none",)
    said = fails(capsys, command, *given, *rest.get(command, ()), "--seed", seed)
    assert "seed" in said


@pytest.mark.parametrize(
    "arguments", [("nosuch", "--help"), ("store", "nosuch", "-h"), ("nosuch", "x", "--help")]
)
def test_help_for_a_command_that_is_not_there(capsys, arguments):
    assert 'Unknown command "nosuch"' in fails(capsys, *arguments)


def test_arguments_that_are_no_text(capsys):
    said = fails(capsys, "trace", "none", "a\udcff")
    assert r"argument 3, b'a\xff', is not valid UTF-8" in said
