"""How a page's numbers can be had again: the command, the config, the model, the versions."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xlens.report.blocks import Block, Code, Folded, Links, Paragraph, Section, Table
from xlens.runs import RunDirectory
from xlens.wording import number_of

# Of a result's provenance: the model's own facts, in this order.
_FACTS = (
    *("model", "weights", "architecture", "source", "revision", "licence", "dtype", "device"),
    *("attention", "prepends_bos", "fingerprint", "tokenizer", "digest", "trust_remote_code"),
)


def reproduce(run: RunDirectory, made_by: list[dict[str, Any]]) -> Section:
    """The model's facts, the command, the config and the versions."""
    known = run.provenance
    rows: list[list[str]] = []
    for fact in _FACTS:
        values = dict.fromkeys(str(p[fact]) for p in made_by if p.get(fact) is not None)
        if values:
            rows.append([fact.replace("_", " "), "; ".join(values)])
    blocks: list[Block] = []
    if known.get("command"):
        blocks.append(Code(str(known["command"]), copied=True))
    blocks += _data(run)
    blocks.append(Folded("Options, as in config.yaml", (Code(run.config_text, copied=True),)))
    if shown := _headers(made_by):
        blocks.append(Paragraph(f"Demonstrations: {'; '.join(shown)}, drawn whole by intervals."))
    if rows:
        blocks.append(Table("The model", ["fact", "value"], rows, numbers=False))
    versions = [[str(k), str(v)] for k, v in dict(known.get("versions", {})).items()]
    versions += [["platform", str(known["platform"])]] if known.get("platform") else []
    if versions:
        table = Table("Versions", ["package", "version"], versions, numbers=False)
        blocks.append(Folded("Versions of all packages", (table,)))
    if known.get("resumed"):
        blocks += [
            Paragraph("The run was taken up again, with these changes:"),
            Code(json.dumps(known["resumed"], indent=1, ensure_ascii=False)),
        ]
    return Section("reproduce", "How to reproduce this", tuple(blocks))


def _data(run: RunDirectory) -> Iterator[Block]:
    """Where options and numbers lie: people's files first, then every part's."""
    there = sorted(path for path in run.results_folder.rglob("*") if path.is_file())
    own = [run.config_file, run.provenance_file]
    read = [*own, *(path for path in there if path.suffix == ".csv")]
    yield Paragraph("Data beside this page:")
    yield Links(tuple(_link(run, path) for path in read))
    rest = tuple(_link(run, path) for path in there if path.suffix in (".parquet", ".json"))
    if rest:
        n = number_of(len(rest), "file")
        yield Folded(f"Every result: {n} (tables as Parquet)", (Links(rest),))


def _link(run: RunDirectory, path: Path) -> tuple[str, str]:
    name = path.relative_to(run.path).as_posix()
    return quote(name), name


def _headers(known: Any) -> list[str]:
    """What provenances say of shared demonstrations: `12 headers of 3`, each once."""
    found: list[str] = []
    if isinstance(known, Mapping):
        if known.get("headers") and known.get("shots"):
            found.append(f"{number_of(int(known['headers']), 'header')} of {known['shots']}")
        known = [value for name, value in known.items() if name not in ("made_from", "study")]
    if isinstance(known, list):
        found += [text for each in known for text in _headers(each)]
    return list(dict.fromkeys(found))
