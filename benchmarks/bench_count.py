"""Facts counted in a corpus: megabytes a second on one core, against 14,364 pairs.

The corpus is made up: English words as often as they are in English (Zipf), the rarer ones
invented from English syllables, typographic quotation marks in some documents, a real name in a
hundred words, and one document in ten of the letters of another of the twelve languages. The pairs
are names of CLDR in twelve languages, 1,197 each. Beside it the scan of ahocorasick-rs, which only
finds the phrases in text that is in their spelling, and a search for one phrase after the other.
"""

import gzip
import json
import random
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import pandas as pd
from babel import Locale
from common import interleaved, ratios, scratch_folder, settings
from tables import Row, write

from xlens.corpus import FACT, Pairs, count_facts
from xlens.corpus.spelling import spelled

LANGUAGES = ("en", "fr", "es", "ar", "zh", "ru", "ja", "tr", "uk", "ca", "ko", "el")
COMMON = """the of and to in a is that for it as was with be by on not he his but at are this have
from or had an they which one you were all her she there would their we him been has when who will
no more if out so said what up its about than into them can only other time new some could these two
may first then do any like my now over such our man me even most made after also did many"""
SYLLABLES = """ca con de di ed er ing in la ly ment ness per pre re ri sion st ter tion tra un ver
al an ar be co ent es est ex i ic id le li ma mi mo na ne o on pa po pro ra ro se si so ta te ti to
tu us vi y"""
REPEATED = 10  # so that what is done once a process is as little of it as in a corpus
BLOCK = 1 << 20
SCAN, NAIVE = "ahocorasick-rs scan of spelled text", "bytes.find of each phrase in spelled text"


@cache
def names(tag: str) -> tuple[list[str], list[str]]:
    """Subjects and objects: languages, currencies and cities; countries."""
    locale = Locale(tag)
    subjects = [*locale.languages.values(), *map(str, locale.currencies.values())]
    subjects += [zone["city"] for zone in locale.time_zones.values() if "city" in zone]
    return subjects, list(locale.territories.values())


def make_facts(n: int, rng: random.Random) -> pd.DataFrame:
    rows = [
        (str(number), "relation", tag, rng.choice(names(tag)[0]), rng.choice(names(tag)[1]))
        for tag in LANGUAGES
        for number in range(n)
    ]
    return pd.DataFrame(rows, columns=pd.Index(FACT))


def make_documents(size: int, rng: random.Random) -> list[str]:
    """Documents of about 3 kB, `size` bytes in all."""
    rare = ["".join(rng.choices(SYLLABLES.split(), k=rng.randint(1, 4))) for _ in range(20_000)]
    words = [*COMMON.split(), *rare]
    weights = list(accumulate(1 / (n + 2.7) for n in range(len(words))))
    known = {tag: [name for part in names(tag) for name in part] for tag in LANGUAGES}
    other = {
        tag: ["".join(rng.sample(word, len(word))) for name in known[tag] for word in name.split()]
        for tag in LANGUAGES
    }
    found: list[str] = []
    while size > 0:
        tag = rng.choice(LANGUAGES[1:]) if rng.random() < 0.1 else "en"
        text = rng.choices(words, cum_weights=weights, k=500)
        if tag != "en":
            text = rng.choices(other[tag], k=200)
        for n in range(0, len(text), 100):
            text[n] = rng.choice(known[tag])
        whole = " ".join(text).replace(" the ", ". The ", 9).replace(" and ", ", and ", 9)
        if tag == "en" and rng.random() < 0.3:
            whole = whole.replace(" said ", "’s ").replace(" that ", " “that” ", 2)
        found.append(whole)
        size -= len(whole.encode())
    return found


def peers(phrases: list[bytes], text: bytes, naive: bytes) -> dict[str, Callable[[], object]]:
    """What only looks for the phrases, in text that is spelled already."""
    found: dict[str, Callable[[], object]] = {
        NAIVE: lambda: [naive.find(phrase) for phrase in phrases]
    }
    if find_spec("ahocorasick_rs"):
        from ahocorasick_rs import BytesAhoCorasick, Implementation

        made = BytesAhoCorasick(phrases, implementation=Implementation.DFA)
        blocks = [text[n : n + BLOCK] for n in range(0, len(text), BLOCK)]
        found[SCAN] = lambda: [made.find_matches_as_indexes(b, overlapping=True) for b in blocks]
    return found


def main() -> None:
    args = settings(__doc__, rounds=5)
    rng = random.Random(0)
    facts = make_facts(50 if args.quick else 1_197, rng)
    documents = make_documents(200_000 if args.quick else 20_000_000, rng)
    once = "\n".join(documents).encode() + b"\n"
    phrases = list(Pairs.of(list(facts["subject"]), list(facts["object"])).phrases)
    rows: list[Row] = []
    with scratch_folder() as folder:
        text = once * REPEATED
        lines = "\n".join(json.dumps({"text": document}) for document in documents).encode()
        contents = {"plain text": ("a.txt", text), "JSON Lines": ("a.jsonl", lines)}
        contents["JSON Lines, gzip"] = ("a.jsonl.gz", gzip.compress(lines, 6))
        paths = {what: Path(folder, name) for what, (name, _) in contents.items()}
        for what, (_, data) in contents.items():
            paths[what].write_bytes(data)

        def run(path: Path, window: int | None = None) -> None:
            count_facts([path], facts, window=window, progress=False)

        own = {what: lambda path=path: run(path) for what, path in paths.items()}
        own["plain text, within 10 words too"] = lambda: run(paths["plain text"], 10)
        plain = spelled(once)
        naive = plain[: len(plain) // 80]
        others = peers(phrases, plain, naive)
        times = interleaved({**own, **others}, args.rounds)
        sizes = {what: len(lines if "JSON" in what else text) / 1e6 for what in own}
        for what, size in sizes.items():
            rates = [size / seconds for seconds in times[what].cpu.values()]
            setting = f"{size:.0f} MB unpacked, {len(facts):,} pairs"
            target = "≥ 50" if what == "plain text" else ""
            rows.append(Row(f"count_facts, {what}", setting, "", rates, "rate", target))
        for what in others:
            scale = len(text) / len(naive if what == NAIVE else plain)
            faster = ratios(times[what], times["plain text"], scale=scale)
            setting = f"{len(facts):,} pairs"
            rows.append(Row("count_facts, plain text", setting, what, faster, "speed"))
        found = count_facts([paths["plain text"]], facts, progress=False)
    together = int((found.facts["documents"] > 0).sum())
    notes = [
        f"{len(documents):,} documents; {len(phrases):,} phrases; {together:,} pairs stand in one. "
        "Times of count_facts include reading, the making of its database, and digests; plain text "
        f"is {REPEATED} times the same. The peers find phrases in text that is spelled already, "
        "within words too, and count nothing; bytes.find in an eightieth of it."
    ]
    write("count", rows, args, times={"": times}, notes=notes)


if __name__ == "__main__":
    main()
