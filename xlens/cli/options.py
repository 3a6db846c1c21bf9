"""How options of several commands are written."""

from typing import Literal

from cyclopts import Parameter

Flat = Parameter(name="*")
# Of every command: several values after one option (--controls shuffled repetition).
DEFAULT = Parameter(consume_multiple=True, negative_iterable=())
Switch = Parameter(negative=())
Dtype = Literal["float32", "bfloat16", "float16"]
