"""Public names that are imported on first use, so that importing a package stays quick."""

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_NONE: dict[str, str] = {}


def lazy(
    package: str, public: Mapping[str, str], moved: Mapping[str, str] = _NONE
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose names live in its modules (PEP 562).

    Args:
        package: Its `__name__`.
        public: Module (relative to the package) by name; a name that is itself a module maps to
            the empty string.
        moved: As `public`, of names that are to be taken from that module from now on: they work
            for one release, with a warning, and `dir` doesn't show them.
    """

    def load(name: str) -> Any:
        if name in moved:
            said = f"{package}.{name} is {package}.{moved[name]}.{name} from now on."
            warnings.warn(said, DeprecationWarning, stacklevel=2)
            return getattr(importlib.import_module(f"{package}.{moved[name]}"), name)
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not public[name]:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(f"{package}.{public[name]}"), name)

    return load, lambda: sorted(public)


def listed(public: Sequence[str]) -> Callable[[], list[str]]:
    """`__dir__` of a module that shows its `__all__`, and nothing that it imports."""
    return lambda: sorted(public)
