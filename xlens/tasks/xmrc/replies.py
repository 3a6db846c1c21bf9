"""What of a model's reply is its answer: without thoughts, the first line, without a label."""

import re

from xlens.tasks.xmrc.templates import TEMPLATES

_OPEN, _CLOSE = "<think>", "</think>"
_THOUGHTS = re.compile(f"{_OPEN}.*?{_CLOSE}", re.DOTALL)
# The longest first: a label may begin with another one. Models write either colon after any.
_LABELS = sorted({form.answer.rstrip(":：") for form in TEMPLATES.values()}, key=len, reverse=True)
_LABEL = re.compile(rf"^(?:{'|'.join(map(re.escape, _LABELS))})\s*[:：]\s*", re.IGNORECASE)


def first_line(text: str) -> str:
    """The first line of a reply that says something, without thoughts and an answer's label.

    Where nothing follows the label (`Answer:`), the next line is the answer. Empty where a reply
    has no line, or only thoughts: `<think>` that is never closed, say.
    """
    for line in without_thoughts(text).splitlines():
        if said := _LABEL.sub("", line.strip()):
            return said
    return ""


def without_thoughts(text: str) -> str:
    """A reply without what stands in `<think>…</think>`; nothing where that is never closed.

    A chat template may open the thoughts, so that the reply has their end only.
    """
    # Whole thoughts first; an end that is left over had its beginning in the prompt.
    said = _THOUGHTS.sub("", text).rpartition(_CLOSE)[2]
    return "" if said.lstrip().startswith(_OPEN) else said


def has_thoughts(text: str) -> bool:
    """Whether a reply has thoughts, closed or not."""
    return _OPEN in text or _CLOSE in text
