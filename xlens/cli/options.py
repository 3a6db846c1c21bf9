"""How options of several commands are written."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token, convert


def strictly(hint: Any, tokens: Sequence[Token] | Mapping[str, Sequence[Token]]) -> Any:
    """A value as cyclopts reads it, but that a whole number is written as one: 12.7 is none.

    Args:
        hint: Its type.
        tokens: As written; by key where an option is a table (`--names.tlh`).

    Raises:
        ValueError: a number with a fraction where a whole one is wanted.
    """
    said = str(hint)
    if hint is int or ("int" in said and "float" not in said and "str" not in said):
        lists = tokens.values() if isinstance(tokens, Mapping) else [tokens]
        for token in itertools.chain(*lists):
            if token.value and re.fullmatch(r"[-+]?[0-9]*\.[0-9]*", token.value):
                raise ValueError(f"{token.value!r} is no whole number")
    return convert(hint, tokens)  # pyright: ignore[reportArgumentType] (it says less than it takes)


Flat = Parameter(name="*")
# Of every command: several values after one option (--controls shuffled repetition).
DEFAULT = Parameter(consume_multiple=True, negative_iterable=(), converter=strictly)
Switch = Parameter(negative=())
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, and where it runs.

    Attributes:
        dtype: Of the weights; the readout is fp32 in any case.
        revision: Branch, tag or commit of a hub id.
        trust_remote_code: Run code that comes with the checkpoint.
        attention: What computes attention: eager, sdpa, …; default what suits the model.
        adapter: A LoRA or another adapter of peft on the model: its folder or hub id.
        merge: Fold the adapter into the weights.
        executor: Where it runs: local; ray (a cluster that RAY_ADDRESS names, else this machine) or
            ray://HOST:PORT, also with ?workers=N&cpus=N&gpus=N&shared=yes (the extra `ray`).
    """

    dtype: Dtype = "float32"
    revision: str | None = None
    trust_remote_code: Annotated[bool, Switch] = False
    attention: str | None = None
    adapter: str | None = None
    merge: Annotated[bool, Switch] = False
    executor: str = "local"

    def options(self) -> dict[str, Any]:
        """As a run records it: of what runs began without, only what is given.

        Where it runs is left out: a run may be taken up again elsewhere.
        """
        kept = ("dtype", "revision", "trust_remote_code")
        given = {name: value for name, value in asdict(self).items() if name in kept or value}
        return {name: value for name, value in given.items() if name != "executor"}


LOADING = Loading()
