"""Nonsense given to functions, files and the command line: refused in words, or it means something.

What is taken is told row by row, and what may be taken stands in `MEANT`.
"""

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cache, reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from commands import Ground
from row import Row

NO_MODEL = "this/model-is-never-loaded"
NUMBERS = {
    "int": ("-1", "x", "1.5", "1e400", "9" * 30, "NaN", ""),
    "float": ("nan", "x", "-1", "inf", ""),
}
WORDS = ("no such word", "", "\x00", "\ud800")
BASES: dict[str, list[str]] = {
    "phases": ["phases", NO_MODEL, "--data", "DATA", "--questions", "en,de"],
    "steer": ["steer", NO_MODEL, "--languages", "en", "de"],
    "lens": ["lens", NO_MODEL, "--from", "de", "--to", "ru", "--kinds", "weekday"],
    "demo": ["demo", "--model", NO_MODEL],
    "choices": ["choices", NO_MODEL, "--languages", "en", "de"],
    "process": ["process", NO_MODEL, "--languages", "en", "de", "fr", "sw"],
    "facts": ["facts", NO_MODEL, "--languages", "en", "de", "--relations", "capital"],
    "trace": ["trace", NO_MODEL, "Wo?"],
    "xmrc": ["xmrc", NO_MODEL, "--data", "DATA", "--questions", "en,de"],
    "harvest": ["harvest", NO_MODEL, "PROMPTS"],
    "align": ["align", NO_MODEL, "--from", "de", "--data", "DATA", "--no-inside"],
    "neurons": ["neurons", NO_MODEL, "--languages", "en", "de"],
    "fit-lens": ["fit-lens", NO_MODEL, "--languages", "en", "de"],
    "store prune": ["store", "prune", "--dry-run", "--keep", "1G"],
    "report": ["report", NO_MODEL],
}
# Options that take any name, or for which the least number means something.
MEANT = {"--revision", "--attention", "--adapter", "--executor", "--layers", "--out", "--model"}
MEANT |= {"--api-key-env", "--names", "--config"}
HUGE = 10**30
# No more than there are; and what only a model's size tells: `test_bad_input` gives it one.
MOST = {"n_items", "n_controls", "n_latent", "n_outputs", "n_phases", "per_paragraph"}
MOST |= {"n_texts", "n_held", "max_tokens", "n_steps", "positions", "n_pairs", "n_inside"}
MOST |= {"n_candidates", "concurrency", "top_k", "max_new_tokens", "keep_weights"}
# Told by the models that are named, before one is loaded; or by their endpoints.
LATER = {"revision", "attention", "adapter", "pair", "phase_layers", "served", "api_key_env"}
MEANT_FIELDS = {"last", "token_budget", "strengths", "removal_strengths", "root"}
LATER |= {"targets"}  # modules of the model that is named
LATER |= {"extra_body", "price_in", "price_out", "temperature"}


def said(line: Sequence[str]) -> tuple[object, str]:
    """How `xlens LINE` ends, and what it says on stderr."""
    from xlens.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(line))
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    return code, err.getvalue()


def error_of(told: str) -> str:
    """The line of an error at the end of what is said."""
    return told[max(0, told.rfind("xlens: error:")) :]


def options(command: str) -> Iterator[tuple[str, str]]:
    """The long name of each option of a command, and its type as it is written."""
    from xlens.cli import app

    found = reduce(lambda place, word: place[word], command.split(), app)
    for argument in found.assemble_argument_collection():
        names = [name for name in argument.names if name.startswith("--")]
        if names and not names[0].startswith("--no-"):
            yield names[0], str(argument.hint)


def command_line(ground: Ground, command: str, base: Sequence[str]) -> Row:
    """Every option of a command, with what can't be meant."""
    row = Row(f"bad input, options of {command}")
    places = {"DATA": str(ground.data), "PROMPTS": str(ground.prompts)}
    usual = error_of(said([places.get(word, word) for word in base])[1])
    for name, hint in options(command):
        kind = next((kind for kind in NUMBERS if kind in hint), None)
        if "bool" in hint or name in MEANT:
            continue
        for token in NUMBERS[kind] if kind and "str" not in hint else WORDS:
            row.tried += 1
            line = [places.get(word, word) for word in base]
            if name in line:  # in the place of what stands there
                at = line.index(name)
                line = line[:at]
            code, told = said([*line, f"{name}={token}"])
            error = error_of(told)
            if code != 2 or "Traceback" in told or error.count("\n") != 1:
                row.faults.append(f"{command} {name}={token!r}: {code} {told[-300:]!r}")
            elif error == usual:
                row.counts["of a model's size, or as many as there are"] += 1
                field = name.removeprefix("--").replace("-", "_")
                if field not in MOST | LATER | MEANT_FIELDS:
                    row.faults.append(f"{command} {name}={token!r} is taken")
    return row


def fields_of_studies(data: Path) -> Row:
    """Every field of every study, refused when it is made, read, or checked: without a model.

    Args:
        data: Reading questions.
    """
    from xlens.studies import Loading, Serving, Study, find_studies

    row = Row("bad input, fields of studies")
    usual: dict[str, dict[str, Any]] = {
        "lens": {"pairs": ("de:ru",), "kinds": ("weekday",), "n_items": 3, "n_controls": 3},
        "choices": {"languages": ("en", "de"), "kinds": ("code-territory",)},
        "process": {"languages": ("en", "de"), "steer": ("lda",)},
        "facts": {"languages": ("en", "de"), "relations": ("capital",)},
        "steer": {"languages": ("en", "de")},
        "xmrc": {"data": str(data), "questions": ("en", "de"), "phases": True},
        "phases": {"data": str(data), "questions": ("en", "de")},
        "align": {"source": ("de",), "languages": ("en", "de"), "kinds": ("next-weekday",)},
        "neurons": {"languages": ("en", "de")},
        "fit-lens": {"languages": ("en", "de")},
    }
    for kind in [*find_studies().values(), Loading, Serving]:
        given = usual.get(getattr(kind, "COMMAND", ""), {})
        read = cache(lambda kind=kind, given=given: kind(**given).read())
        hints = get_type_hints(kind)
        for field in fields(kind):
            for value in nonsense(hints[field.name]):
                if value == HUGE and field.name in MOST:
                    continue
                row.tried += 1
                try:
                    made = kind(**{**given, field.name: value})
                    if isinstance(made, Study):
                        made.check(read() if isinstance(value, int) else made.read())
                except ValueError as error:
                    if len(str(error)) < 20 or "codec" in str(error):
                        row.faults.append(f"{kind.__name__}.{field.name}={value!r}: {error}")
                except Exception as error:
                    row.faults.append(f"{kind.__name__}.{field.name}={value!r}: {error!r}")
                else:
                    if field.name not in LATER:
                        row.faults.append(f"{kind.__name__}.{field.name}={value!r} is taken")
    return row


def nonsense(hint: Any) -> list[Any]:
    """What no value of a type can be meant to be."""
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return [(value,) for value in nonsense(parts[0])]
    if str in (hint, *parts) or get_origin(hint) is Literal:
        return [*WORDS]
    if float in (hint, *parts):
        return [float("nan"), float("inf")]
    return [-1, HUGE] if int in (hint, *parts) else [3]


def functions() -> Row:
    """Arguments of another type, and words and seeds that there are not."""
    from test_typed import ROOMS

    from xlens.checks import WrongType, arguments_of

    class Odd:
        pass

    row = Row("bad input, arguments of functions")
    for room in ROOMS:
        module = __import__(f"xlens.{room}", fromlist=["_"])
        for name in module.__all__:
            function = getattr(module, name)
            if not getattr(function, "is_typed", False):
                continue
            for argument, hint in arguments_of(inspect.unwrap(function)).items():
                if "Any" in hint.accepted or "Hashable" in hint.accepted:
                    continue
                wrong: list[Any] = [Odd(), [Odd()], {3: Odd()}]
                wrong += ["no such word"] * hint.accepted.startswith("one of ")
                wrong += [-1, 2**63] * (argument == "seed")
                for value in wrong:
                    row.tried += 1
                    try:
                        hint.check(value)
                        row.faults.append(f"{room}.{name}({argument}={value!r}) is taken")
                    except (WrongType, ValueError) as error:
                        if argument not in str(error):
                            row.faults.append(f"{room}.{name}({argument}=…): {error}")
    return row


def values() -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls with values of the right type that can't be."""
    import kit

    import xlens
    from xlens import Prompt, Prompts, engine, stats
    from xlens.served import ServedModel
    from xlens.studies import ReadingStudy, SteeringStudy
    from xlens.tasks.choices import cldr_choices
    from xlens.tasks.words import cldr_words

    model = kit.fresh("gpt2")
    asked = [Prompt("Wo liegt Rom?", "de", "1"), Prompt("Where is Rome?", "en", "1")]
    nan, inf = float("nan"), float("inf")
    tried: dict[Callable[..., object], dict[str, list[Any]]] = {
        lambda **o: xlens.harvest(model, asked, progress=False, **o): {
            "layers": [99, -99, [], [0, 99], "top", ""],
            "slots": ["", "x", "last:", ":mean", "x:mean", []],
            "token_budget": [0, -1],
            "site": ["", "mlp"],
        },
        lambda **o: engine.score(model, asked, **({"candidates": [" a"]} | o), progress=False): {
            "candidates": [[], [""], [" a", " a"], {}, [[" a"]]],
            "layers": [99],
        },
        lambda **o: engine.generate(model, asked, progress=False, **({"max_new_tokens": 2} | o)): {
            "max_new_tokens": [0, -1, 10**9],
            "stop": ["", [""]],
        },
        lambda **o: engine.relevance(model, asked, progress=False, **({"targets": [1, 2]} | o)): {
            "targets": [[], [1], [-1, 0], [10**9, 0], ["", ""]],
            "rule": ["", "lrp"],
            "at": ["", "all", "x:last"],
        },
        lambda **o: engine.tally(model, asked, progress=False, **o): {
            "site": ["", "no"],
            "layers": [99],
            "threshold": [nan],
        },
        lambda **o: stats.Resampling(**o): {
            "draws": [0, -1],
            "confidence": [0.0, 1.0, -1.0, 2.0, nan, inf],
            "seed": [-1],
        },
        lambda **o: Prompt(**({"text": "a", "language": "en", "id": "1"} | o)): {
            "text": ["", "\ud800"],
            "language": ["", "english", "12"],
            "id": [""],
            "spans": [{"w": (0, 9)}, {"w": (1, 0)}, {"w": (-1, 1)}],
            "meta": [{"id": "x"}, {"language": "x"}, {"n_tokens": 1}, {"tokens": "x"}],
        },
        lambda **o: cldr_words(**o): {"languages": [[], ["xx"], ["english"], ["tlh"]]},
        lambda **o: cldr_choices(**({"languages": ["en", "de"]} | o)): {
            "languages": [[], ["en"], ["en", "en"], ["xx", "en"]],
            "seed": [-1],
        },
        lambda **o: ServedModel(**({"model": "m", "base_url": "http://h/v1"} | o)): {
            "model": [""],
            "base_url": ["", "h", "ftp://h", "http://u:p@h", "http://h?k=1"],
            "timeout": [0.0, -1.0, nan],
            "concurrency": [0, -1],
            "max_retries": [-1],
            "temperature": [-1.0, nan, inf],
            "price_in": [1.0, -1.0, nan],
            "api_key_env": ["sk-abc"],
        },
        lambda **o: SteeringStudy(**o): {
            "steer": [("no",)],
            "strengths": [(nan,), (inf,), ()],
            "layers": [("x",), ("-",), ("",)],
            "n_dev": [0, -1],
            "n_test": [0],
        },
        lambda **o: ReadingStudy(**o): {
            "n_items": [0, -1],
            "shots": [-1],
            "max_new_tokens": [0],
            "settings": [("no",)],
            "n_controls": [-1],
        },
        lambda **o: xlens.load(**o): {"source": ["", "no/such/thing.gguf", "./none", "\x00"]},
        lambda **o: Prompts(**o): {"prompts": [[asked[0], asked[0]]]},
    }
    for call, given in tried.items():
        for name, wrong in given.items():
            for value in wrong:
                text = f"{name}={value!r}"
                yield text, lambda call=call, name=name, value=value: call(**{name: value})


def calls() -> Row:
    row = Row("bad input, values of functions")
    for what, call in values():
        row.tried += 1
        try:
            call()
            row.faults.append(f"{what} is taken")
        except ValueError as error:
            row.counts["without a word on what"] += len(str(error)) < 20
        except Exception as error:
            row.faults.append(f"{what}: {type(error).__name__}: {error}"[:300])
    return row


def files(folder: Path) -> Row:
    """Every field of every kind of file, with every other type."""
    from test_records import READERS

    row = Row("bad input, fields of files")
    for reader in READERS:
        for field in reader.row:
            for value in (None, 1.5, True, ["a", 2], {"a": 1}, "\ud800", [], {}):
                row.tried += 1
                place = folder / "files" / str(row.tried)
                place.mkdir(parents=True)
                path = reader.put(place, {**reader.row, field: value})
                try:
                    reader.read(path)
                    row.counts["taken"] += 1
                    row.counts[f"taken: {reader} {field}={value!r}"] += 1
                except ValueError as error:
                    if ".jsonl" not in str(error):
                        row.faults.append(f"{reader} {field}={value!r}: {error}"[:300])
                except Exception as error:
                    row.faults.append(
                        f"{reader} {field}={value!r}: {type(error).__name__}: {error}"
                    )
    return row


def rows(ground: Ground, folder: Path, times: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the table, as they come."""
    if not only or "calls" in only:
        yield calls()
    if not only or "files" in only:
        yield files(folder)
    if not only or "functions" in only:
        yield functions()
    if not only or "studies" in only:
        yield fields_of_studies(ground.data)
    if not only or "options" in only:
        for command, base in BASES.items():
            yield command_line(ground, command, base)
