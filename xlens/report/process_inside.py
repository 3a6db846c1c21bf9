"""Does it leave a shared space? Similarity, probe, map and options inside, in sentences.

Each says what stands beside it as a control, and among how many looks a number was picked.
"""

from collections.abc import Mapping

from xlens.report.cells import rounded
from xlens.results import Result
from xlens.subspace import LanguageMap, LanguagePairs, LanguageProbe
from xlens.subspace.courses import SimilarityCourse, map_course, probe_course, similarity_course
from xlens.tasks.choices import LatentSummary
from xlens.wording import number_of, percent

MEASURE = "cka_unbiased"
"""What sentences speak of: it sees no shift, rotation or scale, and is 0 on average by chance."""
_SAID = "unbiased CKA"
Names = Mapping[str, str]


def inside_sentences(parts: Mapping[str, Result], names: Names) -> list[str]:
    """What similarity, probe, map and options inside say, of those that are there."""
    said: list[str] = []
    similar, probe, drawn, latent = (
        parts.get(name) for name in ("similarity", "probe", "map", "latent-summary")
    )
    if isinstance(similar, LanguagePairs) and (course := course_of(similar)):
        said += similarity_sentences(course)
    if isinstance(probe, LanguageProbe):
        said += probe_sentences(probe)
    if isinstance(drawn, LanguageMap):
        said += map_sentences(drawn)
    if isinstance(latent, LatentSummary):
        said += latent_sentences(latent, names)
    return said


def course_of(found: Result | None) -> SimilarityCourse | None:
    """How similarity goes over layers, by the measure that is spoken of."""
    if not isinstance(found, LanguagePairs) or MEASURE not in found.measures:
        return None
    if "mismatched" not in set(found.table["kind"]):  # sentences' matrix has no control
        return None
    return similarity_course(found, MEASURE)


def space(course: SimilarityCourse) -> str:
    """Whether there is a shared space, and whether it is left: the middle of a sentence."""
    pairs = number_of(course.n_pairs, "pair")
    if not course.above:
        return f"no shared space is shown: no more alike than mismatched items in any of {pairs}"
    shared = (
        f"languages share a space at point {course.peak} (more alike than mismatched items in "
        f"{course.above} of {pairs})"
    )
    if course.peak == course.highest:
        return f"{shared} and are most alike at the highest, so it isn't left"
    if not course.fallen:
        return f"{shared}, and that it is left by point {course.highest} isn't shown"
    return f"{shared} and leave it by point {course.highest}, less alike in {course.fallen} of them"


def similarity_sentences(course: SimilarityCourse) -> list[str]:
    """How alike languages are inside, and whether they come together and part again."""
    pairs = number_of(course.n_pairs, "pair")
    said = (
        f"Inside, by {_SAID}, languages are most alike at point {course.peak}: "
        f"{rounded(course.at_peak, '.2f')} "
        f"in the mean over {pairs}, mismatched items {rounded(course.control, '.2f')}; by its own "
        "interval "
        f"{course.above} of {pairs} lie above these. It is the highest of "
        f"{number_of(course.n_layers, 'layer')}, so read rather too high."
    )
    ends = [
        f"{rounded(value, '.2f')} at point {layer}, with {n} of {pairs} below their own interval "
        "at the peak"
        for layer, value, n in (
            (course.lowest, course.first, course.risen),
            (course.highest, course.last, course.fallen),
        )
        if layer != course.peak
    ]
    looks = "; no interval is adjusted for pairs or layers." if ends else ""
    return [said, f"It is {', and '.join(ends)}{looks}"] if ends else [said]


def probe_sentences(probe: LanguageProbe) -> list[str]:
    """Where the language can be told, and what is left of that without its subspace."""
    course = probe_course(probe)
    if course is None:
        return []
    n = course.n_layers
    said = [
        "The language of held-out items is told by a linear probe above shuffled languages at "
        f"{course.above} of {number_of(n, 'point')}: least at point {course.low}, in "
        f"{percent(course.lowest)}, most at point {course.high}, in {percent(course.highest)} "
        f"(by chance {percent(probe.chance)}; points each by themselves)."
    ]
    if course.without is not None and course.random is not None:
        out, random = (_range(ends) for ends in (course.without, course.random))
        said.append(
            f"With the languages' subspace taken out it is told in {out}, with random subspaces of "
            f"its rank taken out in {random}: less than with these at {course.less} of {n} points, "
            f"and no more than shuffled languages at {course.gone}."
        )
    return said


def map_sentences(result: LanguageMap) -> list[str]:
    """How much of what varies lies between languages."""
    course = map_course(result)
    if course is None:
        return []
    last = (
        ""
        if course.highest in (course.most, course.least)
        else f"; at the last it is {percent(course.last)}"
    )
    return [
        f"Of the states' variance {percent(course.at_most)} lies between the languages' means at "
        f"point {course.most}, the most of {number_of(course.n_layers, 'layer')} (shuffled "
        f"languages {percent(course.shuffled)}), and {percent(course.at_least)} at point "
        f"{course.least}, the least{last}. It is above the range of shuffled languages at "
        f"{course.above} of {course.n_layers}."
    ]


def latent_sentences(latent: LatentSummary, names: Names) -> list[str]:
    """Whether the pivot's options come up inside, and whether the own ones are right."""
    rows = latent.counted().to_dict("records")
    pivot = names.get(latent.pivot, latent.pivot)
    looks = int(sum(row["layers"] for row in rows))
    found = [
        f"{names.get(str(row['language']), row['language'])} at {row['above']} of {row['layers']}"
        + (
            f" (most {percent(row['most'])} at point {row['at']:g}, the other's "
            f"{percent(row['control'])})"
            if row["above"]
            else ""
        )
        for row in rows
    ]
    own = [row for row in rows if row["right_low"] > row["chance"]]
    n = number_of(len(rows), "language")
    return [
        f"Options inside: {pivot} ones hold more beside an item's own than another item's {pivot} "
        f"options do, by language and point: {', '.join(found)}; {number_of(looks, 'look')}, each "
        "by its own interval, so some come by chance.",
        f"At the output the own options are right more often than by guessing in {len(own)} of {n} "
        "that were read so.",
    ]


def _range(ends: tuple[float, float]) -> str:
    low, high = map(percent, ends)
    return low if low == high else f"{low} to {high}"
