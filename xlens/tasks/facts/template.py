"""What a template asks: a question with a place for the subject, and the object at its end."""

from dataclasses import dataclass

from xlens.prompts.prompt import Part
from xlens.tasks.choices.text import gap

SUBJECT, MASK = "<subject>", "<mask>"


@dataclass(frozen=True)
class Asked:
    """A question, up to where the object would follow.

    Attributes:
        parts: Its text, with the span `subject` where that stands first.
        gap: What stands between it and the object: a space or nothing.
        after: What the template has after the object: `.` perhaps.
    """

    parts: tuple[Part, ...]
    gap: str
    after: str

    @property
    def text(self) -> str:
        """The question, without a space at its end."""
        return "".join(part if isinstance(part, str) else str(part[1]) for part in self.parts)


def asked_as(template: str, subject: str, language: str) -> Asked:
    """A template about a subject (arXiv 2505.14824's code: cut from the mask, then stripped).

    Whether a space stands before the object is what the template says, or else how the language
    writes words. The code of the paper writes a space everywhere.

    Args:
        template: With `<subject>` and `<mask>`.
        subject: In its citation form.
        language: Of both.
    """
    whole, _, rest = template.partition(MASK)
    before = whole.rstrip()
    head, *others = before.split(SUBJECT)
    tail = subject.join(others)
    space = " " if whole != before else gap(language)
    parts: tuple[Part, ...] = (head.lstrip(), ("subject", subject), tail)
    parts = tuple(part for part in parts if part)
    return Asked(parts, space, rest.partition("\n")[0].strip())
