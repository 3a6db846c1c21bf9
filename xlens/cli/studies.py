"""The commands of studies, made from their dataclasses: no option is written here."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from xlens.cli.options import MODELS, RUN, SERVED, Flat
from xlens.studies.loading import Loading
from xlens.studies.serving import Serving
from xlens.studies.study import Study, Switch

_ARGUMENTS = """Args:
    model: Hub id, folder, `.gguf` file, or a name from `xlens models`; one or several, or none
        beside --series.
    study: What is asked.
    loading: How models are loaded.
    serving: How endpoints are asked.
    static: Pictures to write beside the pages: png svg pdf (needs the extra `static`).
    out: Folder of the run; default below `runs`. The same command goes on with a stopped run.
    overwrite: Delete an earlier run there first.
    dry_run: Say what would be made of which prompts, and about how long it takes; run nothing.
"""


def command_of(kind: type[Study]) -> Callable[..., None]:
    """The command of a study: its fields are the options."""
    usual, named = kind(), (kind.MODEL,) if kind.MODEL else None

    def command(model: tuple[str, ...] = named or (), **given: Any) -> None:
        from xlens.cli.study_job import study_job

        # What isn't given isn't passed on.
        study_job(model=model, **{name: default for name, (_, default) in options.items()} | given)

    keyword, either = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    options: dict[str, tuple[Any, Any]] = {
        "study": (Annotated[kind, Flat], usual),
        **({"serving": (_flat(Serving, SERVED), Serving())} if kind.SERVED else {}),
        "loading": (_flat(Loading, MODELS), Loading()),
        "static": (Annotated[tuple[str, ...], Parameter(group=RUN)], ()),
        "out": (Annotated[Path | None, Parameter(group=RUN)], None),
        "overwrite": (Annotated[bool, Switch, Parameter(group=RUN)], False),
        "dry_run": (Annotated[bool, Switch, Parameter(group=RUN)], False),
    }
    model = inspect.Parameter("model", either, annotation=tuple[str, ...], default=named or ())
    more = [
        inspect.Parameter(name, keyword, annotation=hint, default=default)
        for name, (hint, default) in options.items()
    ]
    signature = inspect.Signature([model, *more])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    command.__name__ = kind.COMMAND
    said = inspect.cleandoc(kind.__doc__ or "").split("Attributes:")[0].strip()
    command.__doc__ = f"{said}\n\n{_arguments(signature.parameters)}"
    return command


def _flat(kind: type, group: Group) -> Any:
    return Annotated[kind, Flat, Parameter(group=group)]


def _arguments(taken: Mapping[str, Any]) -> str:
    """What is said of the arguments that the command has."""
    head, *lines = _ARGUMENTS.splitlines()
    return "\n".join([head, *(line for line in lines if line.split(":")[0].strip() in taken)])
