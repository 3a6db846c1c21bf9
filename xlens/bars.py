"""Progress bars: tqdm's, where somebody sees them."""

import sys
from typing import Any

from tqdm import tqdm as _Tqdm

from xlens.terminal import is_quiet


def hidden() -> bool:
    """Whether nobody would see a bar: it was asked for quiet, or errors go into a file or pipe."""
    # A notebook shows what is written there, though it is no terminal.
    return is_quiet() or not (sys.stderr.isatty() or "ipykernel" in sys.modules)


class tqdm(_Tqdm):  # type: ignore[type-arg]
    """`tqdm.tqdm`, disabled where it is hidden."""

    def __init__(self, *args: Any, disable: bool | None = False, **kwargs: Any) -> None:
        super().__init__(*args, disable=bool(disable) or hidden(), **kwargs)
