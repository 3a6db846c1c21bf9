"""Which pairs of phrases stand in which documents: all phrases looked for in one pass."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from xlens.checks import typed
from xlens.corpus.spelling import between, is_boundary, is_enough, spelled, words
from xlens.errors import DataError

COLUMNS = ("documents", "apart", "windowed")
"""What is counted of a pair: documents that hold both phrases, documents in which they stand at
places of their own, and those in which they do so within the window."""
_NEWLINE = 10
_UNKNOWN = 2
_NEAR = 64  # bytes that are looked at first where a boundary hangs on more than two characters
_LOW = (1 << 21) - 1
_LONGEST = 10_000  # bytes of a phrase
_SLICE = 1 << 30  # bytes that are searched at once, of at most 4 GB
_PLACE = 32  # bits of a place in a slice, the rest are those of the phrase
_IN_WORDS = np.isin(np.arange(256), list(string.ascii_lowercase.encode()))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of phrases, and what looks for them.

    Attributes:
        phrases: All that is looked for, in the one spelling of `spelled`.
        subject: The phrase that is each pair's subject.
        object: The phrase that is its object.
        window: Most words between the two that `windowed` counts; None: it isn't counted.
    """

    phrases: tuple[bytes, ...]
    subject: Int[np.ndarray, " pair"]
    object: Int[np.ndarray, " pair"]
    window: int | None = None

    @classmethod
    @typed
    def of(
        cls, subjects: Sequence[str], objects: Sequence[str], *, window: int | None = None
    ) -> "Pairs":
        """Pairs by subject and object.

        Raises:
            ValueError: of one there are more than of the other, a phrase of which nothing is left
                in the one spelling, or a window below 0.
        """
        if len(subjects) != len(objects):
            raise DataError(
                f"There are {len(subjects)} subjects and {len(objects)} objects; give one of each "
                "for every pair."
            )
        if window is not None and window < 0:
            raise DataError(
                f"window is {window}; accepted is the most words that may stand between subject "
                "and object, 0 or more."
            )
        numbers: dict[bytes, int] = {}
        sides: list[list[int]] = []
        for texts in (subjects, objects):
            sides.append([])
            # All at once: a line's spelling depends on no other line.
            whole = "\n".join(" ".join(text.split("\n")) for text in texts)
            lines = spelled(whole.encode("utf-8", "replace"))
            for text, line in zip(texts, lines.split(b"\n"), strict=True):
                phrase = line.strip()
                if not phrase:
                    raise DataError(
                        f"{text!r} is no phrase to look for: it holds nothing that is seen. Write "
                        "the subject or object, or leave the fact out."
                    )
                if len(phrase) > _LONGEST:
                    raise DataError(
                        f"{text!r:.40} … is no phrase to look for: it has {len(phrase):,} bytes, "
                        f"and at most {_LONGEST:,} can be. Leave the fact out."
                    )
                sides[-1].append(numbers.setdefault(phrase, len(numbers)))
        subject, object_ = (np.array(side, dtype=np.int64) for side in sides)
        return cls(tuple(numbers), subject, object_, window)

    def __len__(self) -> int:
        return len(self.subject)

    @cached_property
    def _database(self) -> Any:
        try:
            import hyperscan
        except ImportError:
            raise DataError(
                "Counting needs the package hyperscan: pip install 'xlens-interp[corpus]'."
            ) from None
        found, n = hyperscan.Database(), len(self.phrases)
        found.compile(expressions=list(self.phrases), ids=list(range(n)), elements=n, literal=True)
        return found

    @cached_property
    def _lengths(self) -> Int[np.ndarray, " phrase"]:
        return np.array([len(phrase) for phrase in self.phrases])

    @cached_property
    def _by_subject(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs in the order of their subjects, and where those of each phrase begin there."""
        order = np.argsort(self.subject, kind="stable")
        return order, np.searchsorted(self.subject[order], np.arange(len(self.phrases) + 1))

    def check(self) -> None:
        """See that what looks for the phrases is installed.

        Raises:
            ValueError: it isn't.
        """
        _ = self._database

    def count(self, lines: bytes) -> Int[np.ndarray, "column pair"]:
        """In how many documents each pair stands, by `COLUMNS`.

        Args:
            lines: Documents in UTF-8, each on a line.
        """
        counts = np.zeros((len(COLUMNS), len(self)), dtype=np.int64)
        # Line feeds on both sides are boundaries; zeros let four bytes be read everywhere.
        data = b"".join((b"\n", spelled(lines), b"\n\0\0\0"))
        rows = self._matches(data)
        codes = np.frombuffer(data, dtype=np.uint8)
        for side in (1, 2):
            # Most matches lie within an English word: seen at once.
            within = _IN_WORDS[codes[rows[:, side] - 1]] & _IN_WORDS[codes[rows[:, side]]]
            rows = rows[~within]
            rows = rows[_boundaries(data, rows[:, side])]
        if not len(rows):
            return counts
        phrase, start, end = rows.T
        # How many line feeds stand before a match, which is the number of its line.
        document = np.searchsorted(np.flatnonzero(codes == _NEWLINE), start)
        key = document * len(self.phrases) + phrase
        order = np.argsort(key, kind="stable")
        key, start, end = key[order], start[order], end[order]
        # Where each run of one document and phrase begins.
        first = np.flatnonzero(np.diff(key, prepend=-1))
        pair, one, other = self._together(key[first])
        # Of one phrase all matches have one length, and they come in order: the first one ends
        # first, the last one begins last.
        last = np.append(first[1:], len(key)) - 1
        ends, starts = end[first], start[last]
        apart = (ends[one] <= starts[other]) | (ends[other] <= starts[one])
        # `_together` gives a pair once for each document.
        counts[0] = np.bincount(pair, minlength=len(self))
        counts[1] = np.bincount(pair[apart], minlength=len(self))
        if self.window is not None:
            spans = np.stack([start, end])
            near = [
                self._near(data, spans[:, first[a] : last[a] + 1], spans[:, first[b] : last[b] + 1])
                for a, b in zip(one[apart], other[apart], strict=True)
            ]
            counts[2] = np.bincount(pair[apart][near], minlength=len(self))
        return counts

    def _matches(self, data: bytes) -> Int[np.ndarray, "match 3"]:
        """Every place of every phrase, also within others: phrase, start, end; by their ends."""
        found: list[np.ndarray] = []
        for begin in range(0, len(data), _SLICE):
            # Slices overlap by the longest phrase, or one across the border would be in neither.
            base = max(0, begin - int(self._lengths.max()))
            seen: list[int] = []
            add = seen.append

            def met(phrase: int, start: int, end: int, flags: int, context: object) -> None:
                add(phrase << _PLACE | end)  # noqa: B023 - called here only

            piece = data if len(data) <= _SLICE else data[base : begin + _SLICE]
            self._database.scan(piece, match_event_handler=met)
            places = np.array(seen, dtype=np.int64)
            phrase, end = places >> _PLACE, (places & (1 << _PLACE) - 1) + base
            rows = np.stack([phrase, end - self._lengths[phrase], end], axis=1)
            found.append(rows[end > begin])  # what is not was met in the slice before
        return np.concatenate(found)

    def _together(self, key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of which both phrases are in a document: the pair, and where in `key` each is.

        Args:
            key: Document and phrase in one number, sorted, each once.
        """
        order, begins = self._by_subject
        document, phrase = np.divmod(key, len(self.phrases))
        n = begins[phrase + 1] - begins[phrase]
        # For each phrase that is there, every pair of which it is the subject: runs of unequal
        # length, laid out flat. `within` is the place in a run.
        one = np.repeat(np.arange(len(key)), n)
        within = np.arange(len(one)) - np.repeat(np.cumsum(n) - n, n)
        pair = order[begins[phrase[one]] + within]
        wanted = document[one] * len(self.phrases) + self.object[pair]
        # Where it would stand if it were there; whether it is, the next line sees.
        other = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        both = key[other] == wanted
        return pair[both], one[both], other[both]

    def _near(self, data: bytes, some: np.ndarray, others: np.ndarray) -> bool:
        """Whether one of some spans and one of others lie apart, with few enough words between."""
        begin, begins = _words(data, data.rfind(b"\n", 0, some[0, 0]) + 1)
        for left, right in ((some, others), (others, some)):
            # Of what lies to the left of a span, the nearest is the last one to end before it.
            nearest = np.searchsorted(left[1], right[0], side="right") - 1
            fits = nearest >= 0
            ends, starts = left[1][nearest[fits]] - begin, right[0][fits] - begin
            # Words that begin after the one and before the other.
            between_them = np.searchsorted(begins, starts) - np.searchsorted(begins, ends)
            if (between_them <= self.window).any():
                return True
        return False


@lru_cache(maxsize=1)  # pairs of one document come one after the other
def _words(data: bytes, begin: int) -> tuple[int, np.ndarray]:
    """Where a document begins, and where its words do, in bytes from there."""
    text = data[begin : data.index(b"\n", begin)].decode()
    sizes = np.array([len(character.encode()) for character in text])
    return begin, np.concatenate([[0], np.cumsum(sizes)])[words(text)]


# --- boundaries ----------------------------------------------------------------------------------


def _boundaries(data: bytes, places: Int[np.ndarray, " place"]) -> Bool[np.ndarray, " place"]:
    """Whether there is a boundary between words at places of a text, in bytes."""
    codes = np.frombuffer(data, dtype=np.uint8)
    back = places - 1
    # To the first byte of the character before: UTF-8 has at most three that follow it.
    for _ in range(3):
        back = back - ((codes[back] & 0xC0) == 0x80)
    # Two code points of 21 bits in one number: few different ones, each looked up once.
    pairs = (_characters(codes, back) << 21) | _characters(codes, places)
    different, which = np.unique(pairs, return_inverse=True)
    known = [between(chr(pair >> 21), chr(pair & _LOW)) for pair in different.tolist()]
    answers = np.array([_UNKNOWN if found is None else found for found in known], dtype=np.uint8)
    answers = answers[which]
    for n in np.flatnonzero(answers == _UNKNOWN):
        answers[n] = _looked_at(data, int(places[n]))
    return answers.astype(bool)


def _characters(codes: np.ndarray, places: np.ndarray) -> Int[np.ndarray, " place"]:
    """The characters that begin at these places of UTF-8."""
    lead, *more = (codes[places + n].astype(np.int64) for n in range(4))
    two, three, four = more[0] & 0x3F, more[1] & 0x3F, more[2] & 0x3F
    return np.select(
        [lead < 0x80, lead < 0xE0, lead < 0xF0],
        [lead, (lead & 0x1F) << 6 | two, (lead & 0x0F) << 12 | two << 6 | three],
        (lead & 0x07) << 18 | two << 12 | three << 6 | four,
    )


def _looked_at(data: bytes, place: int) -> bool:
    """Whether there is a boundary at a place, from as much of its line as that hangs on."""
    begin, end = data.rfind(b"\n", 0, place) + 1, data.index(b"\n", place)
    size = _NEAR
    while True:
        low, high = max(begin, place - size), min(end, place + size)
        while low > begin and data[low] & 0xC0 == 0x80:
            low -= 1
        while high < end and data[high] & 0xC0 == 0x80:
            high += 1
        left, right = data[low:place].decode(), data[place:high].decode()
        if (low == begin or is_enough(left)) and (high == end or is_enough(right)):
            return is_boundary(left + right, len(left))
        size *= 4
