"""Reads facts and their frequencies from files: KLAR, BMLAMA, mLAMA, and a plain table."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize, standardize_all
from xlens.records import JSON, by_language, decode, json_document, read_records, record_of
from xlens.tasks.facts.data import Facts, whole_facts
from xlens.tasks.facts.template import MASK, SUBJECT
from xlens.tasks.sources import Languages, choose, language_of, listed, tagged

_TABLES = (".tsv", ".csv")
_KLAR = ("klar", "klar_source")
_BETWEEN = "|"
Rows = list[dict[str, Any]]


@typed
def read_facts(
    path: str | Path,
    *,
    layout: str = "plain",
    languages: Languages = None,
    relations: Iterable[str] | None = None,
    incomplete: Literal["error", "drop"] = "error",
) -> Facts:
    """Read parallel facts from a file or a folder.

    The plain layout is a row per fact and language, of JSON Lines, `.tsv` or `.csv`:

        {"id": "q1", "language": "de", "relation": "capital", "subject": "Frankreich",
         "object": "Paris", "template": "Die Hauptstadt von <subject> ist <mask>."}

    `object` may be a list of right ones, or in a table several with `|` between them; `frequency`
    (documents that state it) and `group` may be there. The others are data sets as published:

    | layout | files | id |
    |---|---|---|
    | `klar` | `LANGUAGE/RELATION.json`, or below `klar` or `klar_source` | its `index` |
    | `bmlama` | `LANGUAGE.tsv`, parallel by line; relations are English templates | the line |
    | `mlama` | `LANGUAGE/RELATION.jsonl`, `templates.jsonl` | `RELATION/lineid` |

    Args:
        path: A file of the plain layout, or a folder.
        layout: One of these names.
        languages: Tags to read; None: all there are. A mapping from tag to the data set's own name.
        relations: These only.
        incomplete: Facts that lack a language or a template that can be asked: `error` names one,
            `drop` leaves them out and counts them. Published sets have many.

    Raises:
        ValueError: no such file, an unknown layout, language or relation, a broken line, a relation
            without a template, and what `Facts` refuses.
    """
    if layout not in _LAYOUTS:
        raise InputError(f"Unknown layout {layout!r}; accepted are {', '.join(_LAYOUTS)}.")
    root = Path(path)
    if not root.exists():
        raise InputError(f"No file or folder {str(root)!r}; give the path of {layout} facts.")
    if (layout == "plain") == root.is_dir():
        kind = "a file" if layout == "plain" else "a folder, with files for each language"
        raise InputError(f"{str(root)!r}: the layout {layout!r} is {kind}.")
    wanted = None if relations is None else set(relations)
    read = _LAYOUTS[layout](root, languages)
    there = list(dict.fromkeys(row["relation"] for rows in read.values() for row in rows))
    if wanted is not None and (missing := sorted(wanted - set(there))):
        raise InputError(f"{root.name} has no relation {missing[:6]}; there are {listed(there)}.")
    rows = [
        {**row, "language": tag}
        for tag, mine in read.items()
        for row in mine
        if wanted is None or row["relation"] in wanted
    ]
    source = root.name if layout == "plain" else f"{layout} in {root.name}"
    return whole_facts(pd.DataFrame(rows), source, incomplete=incomplete)


def _plain(root: Path, languages: Languages) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    split = root.suffix.lower() in _TABLES
    for row in read_records(root, (*JSON, *_TABLES)):
        row.require(("id", "language", "relation", "subject", "object", "template"))
        try:
            tag = standardize(row.text("language"))
        except ValueError as error:
            raise InputError(f"{row.source!r}, {row.place}: {error}") from None
        value = row["object"]
        several = row.texts("object") if isinstance(value, list) else [row.text("object")]
        objects = several[0].split(_BETWEEN) if split else several
        own = {name: row.text(name) for name in ("relation", "subject", "template")}
        fact: dict[str, Any] = {"id": row.name("id"), **own, "objects": objects}
        if "frequency" in row:
            fact["frequency"] = row.whole("frequency")
        if "group" in row:
            fact["group"] = row.text("group", default="")
        found.setdefault(tag, []).append(fact)
    return {
        tag: found[own] for tag, own in choose({t: t for t in found}, languages, root.name).items()
    }


def _klar(root: Path, languages: Languages) -> dict[str, Rows]:
    base = next((root / name for name in _KLAR if (root / name).is_dir()), root)
    found: dict[str, Rows] = {}
    for tag, folder in _folders(base, languages).items():
        rows = found.setdefault(tag, [])
        for file in sorted(folder.glob("*.json")):
            whole = record_of(json_document(decode(file, JSON), file.name), file.name, "the whole")
            whole.require(("prompt_templates", "samples"))
            templates = whole.texts("prompt_templates")
            if not templates:
                whole.refuse(f"there is no template of {file.stem}: prompt_templates is empty.")
            template = templates[0].replace("<MASK>", MASK)
            for n, sample in enumerate(whole["samples"], 1):
                row = record_of(sample, file.name, f"sample {n}")
                row.require(("subject", "object", "index"))
                rows.append(
                    {
                        "id": row.name("index"),
                        "relation": file.stem,
                        "subject": row.text("subject"),
                        "objects": row.text("object"),
                        "template": template,
                    }
                )
    return found


def _mlama(root: Path, languages: Languages) -> dict[str, Rows]:
    base = root / "mlama1.1" if (root / "mlama1.1").is_dir() else root
    found: dict[str, Rows] = {}
    for tag, folder in _folders(base, languages).items():
        rows = found.setdefault(tag, [])
        templates = {
            row.name("relation"): row.text("template")
            for row in read_records(folder / "templates.jsonl", JSON, what="mLAMA's templates")
        }
        for file in sorted(folder.glob("*.jsonl")):
            if file.stem == "templates":
                continue
            template = templates.get(file.stem, "").replace("[X]", SUBJECT).replace("[Y]", MASK)
            for row in read_records(file, JSON):
                row.require(("sub_label", "obj_label", "lineid"))
                rows.append(
                    {
                        "id": f"{file.stem}/{row.name('lineid')}",
                        "relation": file.stem,
                        "subject": row.text("sub_label"),
                        "objects": row.text("obj_label"),
                        "template": template,
                    }
                )
    return found


def _bmlama(root: Path, languages: Languages) -> dict[str, Rows]:
    files = by_language(
        sorted(root.rglob("*.tsv")),
        lambda file: language_of(file, root),
        advice="give the folder of one edition (BMLAMA17 or BMLAMA53).",
    )
    if not files:
        raise InputError(f"No file of {str(root)!r} is named after a language.")
    found: dict[str, Rows] = {}
    for tag, shards in choose(tagged(files), languages, root.name).items():
        rows = chain.from_iterable(read_records(file, _TABLES) for file in shards)
        for line, row in enumerate(rows, 1):
            row.require(("Prompt", "Ans", "Subject"))
            subject = row.text("Subject")
            template = row.text("Prompt").replace(subject, SUBJECT) if subject else ""
            found.setdefault(tag, []).append(
                {"id": str(line), "subject": subject, "objects": row.text("Ans").split(", ")}
                | {"template": template}
            )
    # The files don't name relations: facts of one template are of one.
    home = found.get("en") or next(iter(found.values()))
    # Lines are parallel, so the id finds a line's relation in every language.
    relation = {row["id"]: row["template"] for row in home}
    for rows in found.values():
        for row in rows:
            row["relation"] = relation.get(row["id"], "")
    return found


def _folders(base: Path, languages: Languages) -> dict[str, Path]:
    """The folders of a data set that are named after a language."""
    by_name: dict[str, Path] = {}
    for folder in sorted(base.iterdir()):
        try:
            if folder.is_dir() and standardize_all([folder.name]):
                by_name[folder.name] = folder
        except ValueError:
            continue
    if not by_name:
        raise InputError(f"No folder in {str(base)!r} is named after a language.")
    return choose(tagged(by_name), languages, str(base))


_LAYOUTS: Mapping[str, Callable[[Path, Languages], dict[str, Rows]]] = {
    "plain": _plain,
    "klar": _klar,
    "bmlama": _bmlama,
    "mlama": _mlama,
}
LAYOUTS = tuple(_LAYOUTS)
