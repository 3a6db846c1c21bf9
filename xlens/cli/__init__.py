"""The command line: glue between the rooms, light until a command runs."""

import io
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict

from xlens import __version__
from xlens._renamed import names_of
from xlens.cli import commands, corpus, store
from xlens.cli.options import DEFAULT
from xlens.cli.studies import command_of
from xlens.errors import DataError, InputError, XlensError
from xlens.records import surrogate
from xlens.studies import find_studies
from xlens.studies.study import Study, Switch
from xlens.terminal import be_quiet

app = App(
    name="xlens",
    version=__version__,
    help="""In which language, and where, does a multilingual language model think?

`xlens demo` shows it on Gemma 3 270M. `xlens COMMAND --help` has examples.""",
    help_format="markdown",
    help_epilogue="""Any option can stand in a YAML file, under its command's name, and is read with
`xlens --config FILE COMMAND`. Every run writes such a file beside its results.""",
    default_parameter=DEFAULT,
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)
app.meta.suppress_keyboard_interrupt = False
app.register_install_completion_command(name="--install-completion")
for study in find_studies().values():
    app.command(command_of(study))
app.command(commands.trace)
app.command(commands.harvest)
app.command(commands.models)
app.command(commands.report)
app.command(commands.compare)
app.command(corpus.count)
app.command(store.app)
_LONGEST = 2_000  # characters of an error: what was given may be long
_BUG = (
    "this is a bug in xlens, not in what you asked. Please report it with the lines above and the "
    "command (see SECURITY.md where it concerns data of others)."
)
_MEANT = (XlensError, CycloptsError, MemoryError)
# Errors come to `main`, which prints them in one line.
_OURS: dict[str, Any] = {"exit_on_error": False, "print_error": False}


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
    quiet: Annotated[bool, Switch] = False,
    verbose: Annotated[bool, Switch] = False,
    debug: Annotated[bool, Switch] = False,
) -> None:
    """Run a command, its options read from a YAML file first.

    Args:
        tokens: The command and its options.
        config: YAML file with options by command name; options on the line win.
        quiet: No progress bars, no spinners.
        verbose: Also what the libraries inside have to tell.
        debug: The traceback of errors, too.
    """
    be_quiet(quiet)
    if verbose:
        logging.basicConfig(level=logging.INFO)
    now = names_of(find_studies().get(tokens[0], Study)) if tokens else {}
    app.config = () if config is None else (_options(config, tokens, now),)
    try:
        app([_todays(token, now) for token in tokens], **_OURS)
    finally:
        app.config = ()  # of this command alone: a process may run several


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors of use are one short line and exit code 2.

    Args:
        arguments: As on the command line; None takes them from there.
    """
    for stream in (sys.stdout, sys.stderr):
        # A console in another encoding lacks arrows and most scripts; that is no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app.meta(_readable(given), **_OURS)
    except KeyboardInterrupt:
        print("\nxlens: stopped. The same command goes on where it was.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # The last: what the system says of a file, such as that there is no right to read it.
        meant = isinstance(error, _MEANT) or (isinstance(error, OSError) and bool(error.errno))
        if "--debug" in given or not meant:
            traceback.print_exc()
        if not meant:
            print(f"\nxlens: {_BUG}", file=sys.stderr)
            sys.exit(1)
        said = " ".join(str(error).split())
        more = " …" if len(said) > _LONGEST else ""
        print(f"xlens: error: {said[:_LONGEST]}{more}", file=sys.stderr)
        sys.exit(2)


def _readable(arguments: Sequence[str]) -> list[str]:
    """The arguments, of which those that ask help for a command that isn't there no longer do.

    Raises:
        ValueError: bytes that are no text.
    """
    for number, argument in enumerate(arguments, 1):
        if surrogate(argument) is not None:
            raise InputError(
                f"argument {number}, {_bytes(argument)}, is not valid UTF-8; write it in "
                "UTF-8, or rename the file."
            )
    _, apps, left = app.parse_commands(arguments)
    if left and not left[0].startswith("-") and list(apps[-1]) and apps[-1].default_command is None:
        # With a help flag, the help of the level above would be printed as if all were well.
        return [a for a in arguments if a not in ("--help", "-h")]
    return list(arguments)


def _bytes(argument: str) -> str:
    """An argument that is no text, as the bytes that it was on the command line."""
    try:
        return repr(os.fsencode(argument))
    except UnicodeEncodeError:  # from a program's own list of arguments
        return ascii(argument)


def _todays(token: str, now: Mapping[str, str]) -> str:
    """An option by its name of today, where it is written by its old one."""
    name, equals, value = token.partition("=")
    old = name.removeprefix("--").replace("-", "_")
    if not name.startswith("--") or old not in now:
        return token
    new = "--" + now[old].replace("_", "-")
    print(f"xlens: {name} is called {new} from now on.", file=sys.stderr)
    return f"{new}{equals}{value}"


def _options(path: Path, tokens: Sequence[str], now: Mapping[str, str]) -> Dict:
    """The options in a file, checked as far as one can without knowing the command's own."""
    import yaml

    from xlens.records.plain_yaml import read_yaml

    if not path.is_file():
        raise DataError(f"No file {str(path)!r}: --config takes a YAML file of options.")
    try:
        found: Any = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(
            f"{str(path)!r} is no YAML in UTF-8: {str(error)[:_LONGEST]}. Mend the file."
        ) from None
    commands = [name for name in app if not name.startswith("-")]
    keys: list[str] = [f"{key!s:.40}" for key in found] if isinstance(found, dict) else []
    unknown = sorted(set(keys) - set(commands))
    if unknown or not keys:
        found = ", ".join(map(repr, unknown[:5])) or "no options"
        raise DataError(
            f"{str(path)!r} has {found}: options stand under their command's name, as in "
            f"'lens: {{n_items: 40}}'; commands are {', '.join(commands)}."
        )
    if tokens and tokens[0] in commands and tokens[0] not in keys:
        raise DataError(
            f"{str(path)!r} has options for {', '.join(keys)}, none for {tokens[0]!r}: name the "
            "command that the file is for, or leave out --config."
        )
    if tokens and isinstance(own := found.get(tokens[0]), dict):
        found[tokens[0]] = {_todays(f"--{key}", now)[2:]: own[key] for key in own}
    return Dict(found, source=str(path))
