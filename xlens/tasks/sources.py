"""What the readers of data sets share: files by language, names of languages, the hub."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from langcodes import Language

from xlens.errors import DataError, InputError
from xlens.languages import standardize, standardize_all, written
from xlens.records import Record, record_of

Languages = Sequence[str] | Mapping[str, str] | None
T = TypeVar("T")
SPLITS = frozenset({"train", "dev", "val", "test"})  # `dev` and `val` are languages, too


def open_hub() -> tuple[Callable[..., Iterable[Mapping[str, Any]]], Callable[..., list[str]]]:
    """What loads a configuration of a data set on the hub, and what lists them.

    Raises:
        ValueError: `datasets` isn't installed.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            "Reading from the hub needs the package datasets: pip install datasets. Or download "
            "the files and read them from their folder."
        ) from None
    return datasets.load_dataset, datasets.get_dataset_config_names


def hub_records(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[Record]:
    """Rows of a data set on the hub, as those of a file."""
    for number, row in enumerate(rows, 1):
        yield record_of(row, source, f"row {number}")


def plain_tag(code: str) -> str:
    """`arb_Arab` as `ar`, `deu_Latn` as `de`, `zho_Hans` as `zh-Hans`; nothing for no language."""
    try:
        standard = standardize(code)
    except ValueError:
        return ""
    return str(Language.get(standard).prefer_macrolanguage().simplify_script())


def tagged(by_name: Mapping[str, T]) -> dict[str, T]:
    """By the data set's name of a language and, where it isn't in use, by its plain tag."""
    plain = {plain_tag(name): value for name, value in by_name.items() if plain_tag(name)}
    # Where a plain tag is another file's own name, that file has it.
    return {**plain, **by_name}


def language_of(file: Path, root: Path, skip: Iterable[str] = ()) -> str:
    """The first piece of a file's name, or of its folders below the root, that is a tag."""
    # The nearest to the file first: its own name, pieces of it, its folder, the folder above.
    pieces = [file.stem, *file.stem.split("."), *reversed(file.relative_to(root).parts[:-1])]
    for piece in pieces:
        if piece not in (*skip, *SPLITS) and plain_tag(piece):
            return piece
    return ""


def choose(by_name: Mapping[str, T], languages: Languages, source: str) -> dict[str, T]:
    """What to read, by tag; `zh-Hans` is `zh` where the data set says only that.

    Raises:
        ValueError: a language that isn't there.
    """
    if languages is None:
        # `tagged` lists most things twice: by their plain tags each is there once.
        return {tag: value for tag, value in by_name.items() if plain_tag(tag) == tag}
    if isinstance(languages, Mapping):
        pairs = dict(zip(standardize_all(languages), languages.values(), strict=True))
    else:
        pairs = {tag: _called(tag, by_name) for tag in standardize_all(languages)}
    if missing := [name for name in pairs.values() if name not in by_name]:
        tags = {name: plain_tag(name) for name in (*missing, *by_name)}
        wanted = {written(tags[name])[0] for name in missing if tags[name]}
        # Of hundreds of names those of the same language: `de-1901` and `de-1996` for `de`.
        near = [name for name in by_name if tags[name] and written(tags[name])[0] in wanted]
        there = f"of that language {listed(near)}" if near else listed(by_name)
        raise DataError(
            f"{source} has no {', '.join(map(repr, missing))}; there are {there}. Where its name "
            "of a language is another, give languages={'sw': 'swh'}."
        )
    return {tag: by_name[name] for tag, name in pairs.items()}


def _called(tag: str, by_name: Iterable[str]) -> str:
    """The one name there of a language in this script, where no region says otherwise."""
    if tag in (names := list(by_name)):
        return tag
    region = Language.get(tag).territory
    same = {
        plain: name
        for name in names
        if (plain := plain_tag(name))
        and written(plain) == written(tag)
        and (not region or Language.get(plain).territory in (None, region))
    }
    return next(iter(same.values())) if len(same) == 1 else tag


def listed(of: Iterable[Any]) -> str:
    """Names for a message, not too many."""
    names = [n.name if isinstance(n, Path) else str(n) for n in of]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "nothing"


def known(asked: Iterable[str] | None, present: Sequence[str], what: str) -> set[str]:
    """What is asked for, all of which is there; everything if nothing is asked.

    Raises:
        ValueError: a bare string, or something that isn't there.
    """
    if asked is None:
        return set(present)
    if isinstance(asked, str):
        raise InputError(f"Expected a sequence of {what}s, got {asked!r}; write [{asked!r}].")
    wanted = set(asked)
    if missing := sorted(wanted - set(present)):
        there = list(dict.fromkeys(present))
        raise InputError(f"No {what} {missing[:8]} here; there are {there[:8]} ({len(there)}).")
    return wanted
