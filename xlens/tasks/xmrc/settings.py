"""Which language context, question and answer are in: the settings of cross-lingual reading."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize, standardize_all

_SETTINGS = ("en-en", "en-x", "x-en", "x-x", "matrix")


class Combination(NamedTuple):
    """Languages of a task: of the context, the question and the right answer."""

    context: str
    question: str
    answer: str


@typed
def settings(
    names: str | Sequence[str], languages: Iterable[str], *, pivot: str = "en"
) -> tuple[Combination, ...]:
    """The combinations of languages behind a setting's name, each once.

    | name | context | question | answer |
    |---|---|---|---|
    | `en-en` | pivot | pivot | pivot |
    | `en-x` | pivot | x | pivot |
    | `x-en` | x | pivot | x |
    | `x-x` | x | x | x |
    | `matrix` | any | any | the context's |

    Args:
        names: One or several of these.
        languages: The x, and the pivot, which may be left out.
        pivot: What `en` stands for in the names.

    Raises:
        ValueError: an unknown name, or no combination.
    """
    asked = (names,) if isinstance(names, str) else tuple(names)
    if unknown := [name for name in asked if name not in _SETTINGS]:
        raise InputError(f"Unknown settings {unknown}; accepted are {', '.join(_SETTINGS)}.")
    home = standardize(pivot)
    others = [tag for tag in standardize_all(languages) if tag != home]
    every = [home, *others]
    by_name = {
        "en-en": [Combination(home, home, home)],
        "en-x": [Combination(home, x, home) for x in others],
        "x-en": [Combination(x, home, x) for x in others],
        "x-x": [Combination(x, x, x) for x in others],
        "matrix": [Combination(c, q, c) for c in every for q in every],
    }
    found = tuple(dict.fromkeys(each for name in asked for each in by_name[name]))
    if not found:
        raise InputError(f"{list(asked)} needs a language other than the pivot {home!r}.")
    return found
