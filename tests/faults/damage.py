"""What disks, copies and people do to files."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path


def _flip(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _byte(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] = dice.randrange(256)


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _hole(data: bytearray, dice: random.Random) -> None:
    """A block that was never written."""
    at = dice.randrange(len(data))
    size = min(dice.choice([1, 16, 512]), len(data) - at)
    data[at : at + size] = bytes(size)


def _noise(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    size = min(dice.choice([2, 32, 512]), len(data) - at)
    data[at : at + size] = dice.randbytes(size)


def _lose(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.choice([1, 8, 100])]


def _gain(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.randbytes(dice.choice([1, 8, 100]))


def _swap(data: bytearray, dice: random.Random) -> None:
    one, other = dice.randrange(len(data)), dice.randrange(len(data))
    data[one], data[other] = data[other], data[one]


def _digit(data: bytearray, dice: random.Random) -> None:
    """One digit for another: what stays readable, and means something else."""
    places = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if places:
        at = dice.choice(places)
        data[at] = 48 + (data[at] - 48 + dice.randrange(1, 10)) % 10


KINDS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flip": _flip,
    "byte": _byte,
    "cut": _cut,
    "hole": _hole,
    "noise": _noise,
    "lose": _lose,
    "gain": _gain,
    "swap": _swap,
    "digit": _digit,
}


def damage(paths: Sequence[Path], dice: random.Random) -> tuple[Path, str] | None:
    """Damage one of the files; which one and how, or None if chance left it as it was."""
    path = dice.choice(paths)
    if dice.random() < 0.05:
        path.unlink()
        return path, "gone"
    kind = dice.choice(list(KINDS))
    before = path.read_bytes()
    data = bytearray(before)
    KINDS[kind](data, dice)
    if bytes(data) == before:
        return None
    path.write_bytes(data)
    return path, kind
