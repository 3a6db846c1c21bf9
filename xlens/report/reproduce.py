"""How a page's numbers can be had again: the command, the config, the model, the versions."""

import json
from html import escape
from typing import Any

from xlens.report.tables import table
from xlens.runs import RunDirectory

# Of a result's provenance: the model's own facts, in this order.
_FACTS = (
    *("model", "weights", "architecture", "source", "revision", "licence", "dtype", "device"),
    *("attention", "prepends_bos", "fingerprint", "tokenizer", "digest", "trust_remote_code"),
)


def reproduce(run: RunDirectory, made_by: list[dict[str, Any]]) -> str:
    """The model's facts, the command, the config and the versions."""
    known = run.provenance
    rows: list[list[str]] = []
    for fact in _FACTS:
        values = dict.fromkeys(str(p[fact]) for p in made_by if p.get(fact) is not None)
        if values:
            rows.append([fact.replace("_", " "), "; ".join(values)])
    parts = ['<section id="reproduce">\n<h2>How to reproduce this</h2>\n']
    if known.get("command"):
        parts.append(f"<pre><code>{escape(str(known['command']))}</code></pre>\n")
    config = run.config_text
    parts.append(f"<p>Config:</p>\n<pre><code>{escape(config)}</code></pre>\n")
    if rows:
        parts.append(table("The model", ["fact", "value"], rows, numbers=False))
    versions = [[str(k), str(v)] for k, v in dict(known.get("versions", {})).items()]
    versions += [["platform", str(known["platform"])]] if known.get("platform") else []
    if versions:
        parts.append(table("Versions", ["package", "version"], versions, numbers=False))
    if known.get("resumed"):
        text = json.dumps(known["resumed"], indent=1, ensure_ascii=False)
        parts.append(
            "<p>The run was taken up again, with these changes:</p>\n"
            f"<pre><code>{escape(text)}</code></pre>\n"
        )
    return "".join([*parts, "</section>\n"])
