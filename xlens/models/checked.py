"""Whether kept weights are what was written: read whole at first, then sampled while untouched.

A stamp beside a folder says what its files looked like when they were last read whole. While size,
times and some blocks of each are the same, that is taken as enough: it costs milliseconds. Once a
time has changed, all of it is read again.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from xlens import files

MANIFEST = "manifest.json"
_BLOCKS, _BLOCK = 64, 1 << 14  # of each file: 1 MB
_log = logging.getLogger(__name__)
_AGAIN = "Load the model again: it is then converted anew."


def check(folder: Path, listed: Mapping[str, Mapping[str, Any]], *, full: bool = False) -> None:
    """Compare a folder's files with their listed sizes and digests.

    Args:
        folder: Where they lie.
        listed: `size` and `sha256` by name.
        full: Read every byte, whatever the stamp says.

    Raises:
        DamagedError: a file is missing, or not what was written.
    """
    stamp = folder.with_name(f".{folder.name}.checked")
    if not full and _untouched(folder, listed, stamp):
        return
    try:
        for name, entry in listed.items():
            files.check_file(folder / name, entry, _AGAIN)
    except files.DamagedError:
        files.remove(stamp)
        raise
    with suppress(OSError):  # of a cache that can't be written to, all is read each time
        files.write(stamp, files.sealed_json({"looks": _looks(folder, listed)}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a converted model says of itself.

    Raises:
        DamagedError: it is missing, or not what was written.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise files.damaged(path, "it is missing", _AGAIN) from None
    # Those of an older xlens have no digest of their own; the files that they list have.
    found = files.unsealed_json(path, raw, _AGAIN, verify=b'\n "sha256": ' in raw)
    if not isinstance(found.get("files"), dict):
        raise files.damaged(path, "it lists no files", _AGAIN)
    return found


def _untouched(folder: Path, listed: Mapping[str, Any], stamp: Path) -> bool:
    try:
        found = files.unsealed_json(stamp, stamp.read_bytes(), "")
        return found["looks"] == _looks(folder, listed)
    except (OSError, ValueError, KeyError):
        return False


def _looks(folder: Path, listed: Mapping[str, Any]) -> dict[str, list[Any]]:
    looks: dict[str, list[Any]] = {}
    for name in listed:
        path = folder / name
        stat = path.stat()
        # The time of change as well: it can't be set back.
        looks[name] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _sample(path)]
    return looks


def _sample(path: Path) -> str:
    whole = sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        step = max((size - _BLOCK) // (_BLOCKS - 1), _BLOCK)
        for at in range(0, size, step):
            file.seek(at)
            whole.update(file.read(_BLOCK))
    return whole.hexdigest()


def remember(path: Path, digest: str) -> None:
    """Note the digest of a GGUF file, which has none in itself; compare it with the last one.

    Raises:
        DamagedError: the bytes changed, and neither size nor time did: nobody wrote it anew.
    """
    name = sha256(str(path.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    note = files.cache_root() / "models" / f".gguf-{name}.json"
    stat = path.stat()
    now = {"file": str(path), "digest": digest, "look": [stat.st_size, stat.st_mtime_ns]}
    try:
        before = files.unsealed_json(note, note.read_bytes(), "")
    except (OSError, ValueError):
        before = now
    if before["digest"] != digest:
        if before["look"] == now["look"]:
            raise files.damaged(
                path,
                f"its SHA-256 was {before['digest'][:12]}… when it was converted and is "
                f"{digest[:12]}… now, though its time is the same",
                f"Copy or download the file again; if it is right as it is, delete {str(note)!r}.",
            )
        _log.warning(
            "%s has other bytes (SHA-256 %s…) than when it was last loaded (%s…): it is another "
            "model now. If you did not replace it, copy or download it again.",
            path,
            digest[:12],
            before["digest"][:12],
        )
    if before is now or before != now:
        with suppress(OSError):
            files.make(note.parent)
            files.write(note, files.sealed_json(now))


def check_shipped(root: Path, part: str) -> None:
    """Compare a checkpoint or a file of the package's data with the digests in its index.

    Raises:
        DamagedError: a file is missing, or not what was packed.
    """
    again = "Install xlens again: pip install --force-reinstall --no-deps xlens-interp."
    index = root / "index.json"
    raw = index.read_bytes()
    listed = files.unsealed_json(index, raw, again).get("digests", {})
    for name, entry in listed.items():
        if name == part or name.startswith(f"{part}/"):
            files.check_file(root / name, entry, again)


def converted_models() -> list[Path]:
    """The folders of converted models in the cache."""
    root = files.cache_root() / "models"
    return sorted(p.parent for p in root.glob(f"*/{MANIFEST}") if not files.is_draft(p.parent))


def check_all() -> dict[str, str]:
    """Read every converted model whole: what is wrong with each, by name; "" where nothing is."""
    found: dict[str, str] = {}
    for folder in converted_models():
        try:
            check(folder, read_manifest(folder)["files"], full=True)
            found[folder.name] = ""
        except files.DamagedError as error:
            found[folder.name] = str(error)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            damage = files.damaged(folder / MANIFEST, f"it can't be read ({error})", _AGAIN)
            found[folder.name] = str(damage)
    return found
