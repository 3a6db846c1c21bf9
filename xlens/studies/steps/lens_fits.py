"""How lenses are fitted and read: texts → core → lenses, and their readings of other texts."""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

from xlens.engine import harvest
from xlens.errors import InputError
from xlens.lens import (
    LOGIT,
    FittedLens,
    JacobianLens,
    Lens,
    LensYardstick,
    TunedLens,
    fit_jacobian_lens,
    fit_tuned_lens,
    lens_yardstick,
    pooled,
    read_lens_items,
)
from xlens.lens.readings import LensReadings, read_texts_through
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.studies.fit_lens import ALL, READINGS, YARDSTICK, FitLensStudy
from xlens.studies.study import Kept, Parts, Step
from xlens.tasks.running_text import passages


def parted(
    texts: Prompts, tokenizer: Any, study: FitLensStudy
) -> tuple[dict[str, list[Prompt]], dict[str, list[Prompt]]]:
    """Passages to fit on and others to read, by language.

    Raises:
        ValueError: too little text in a language.
    """
    n = study.n_texts + study.n_held
    found = passages(texts, tokenizer, tokens=study.max_tokens, most=n, seed=study.seed)
    if few := {tag: len(mine) for tag, mine in found.items() if len(mine) < n}:
        raise InputError(
            f"{n} passages of {study.max_tokens} tokens are wanted in each language "
            f"({study.n_texts} to fit on, {study.n_held} to read), and there are {few}. Give more "
            "text, or lower n_texts, n_held or max_tokens."
        )
    # Every so many-th is held out: passages stand in the order of the text.
    step = n / study.n_held
    out = {round(i * step) for i in range(study.n_held)}
    fitted = {tag: [p for i, p in enumerate(m) if i not in out] for tag, m in found.items()}
    return fitted, {tag: [p for i, p in enumerate(m) if i in out] for tag, m in found.items()}


def lens_steps(
    model: HookedModel, texts: Prompts, study: FitLensStudy, kept: Kept
) -> Iterator[Step]:
    """Every lens, and what they read."""
    tags = study.tags(texts)

    @cache
    def split() -> tuple[dict[str, list[Prompt]], dict[str, list[Prompt]]]:
        return parted(texts, model.tokenizer, study)

    def jacobian(tag: str, _: Parts) -> JacobianLens:
        made = fit_jacobian_lens(
            model,
            split()[0][tag],
            skip=study.skip,
            max_tokens=study.max_tokens,
            rotation=study.rotation,
            # Rows dealt alike in every language would be alike wrong in every language.
            seed=study.seed + 1_000 * tags.index(tag),
            **kept.options,
        )
        return made[tag]

    def together(done: Parts) -> JacobianLens:
        return pooled(_lenses(done, tags))

    def tuned(_: Parts) -> TunedLens:
        every = [text for mine in split()[0].values() for text in mine]
        return fit_tuned_lens(
            model,
            every,
            max_tokens=study.max_tokens,
            steps=study.n_steps,
            seed=study.seed,
            **kept.options,
        )

    def readings(done: Parts) -> LensReadings:
        held = [text for mine in split()[1].values() for text in mine]
        states = harvest(model, _cut(held, model, study), slots="all", **kept.options)
        against = [("jacobian without it", "jacobian"), ("jacobian of it", "jacobian")]
        return read_texts_through(
            model,
            states,
            {tag: _reading(done, tag, tags) for tag in tags},
            against=[*against, ("jacobian", "logit"), ("tuned", "logit")],
            positions=study.positions,
            skip=study.skip,
            resampling=study.resampling,
            progress=kept.progress,
        )

    def yardstick(done: Parts) -> LensYardstick:
        assert study.yardstick is not None
        return lens_yardstick(
            model,
            read_lens_items(study.yardstick),
            {"logit": LOGIT, **_of_all(done, tags)},
            seed=study.seed,
            resampling=study.resampling,
            **kept.options,
        )

    if "jacobian" in study.kind:
        for tag in tags:
            yield Step.one(f"jacobian/{tag}", JacobianLens, partial(jacobian, tag))
        if len(tags) > 1:
            yield Step.one(f"jacobian/{ALL}", JacobianLens, together)
    if "tuned" in study.kind:
        yield Step.one(f"tuned/{ALL}", TunedLens, tuned)
    yield Step.one(READINGS, LensReadings, readings)
    if study.yardstick is not None:
        yield Step.one(YARDSTICK, LensYardstick, yardstick)


def _lenses(done: Parts, tags: list[str]) -> list[JacobianLens]:
    found = [done[f"jacobian/{tag}"] for tag in tags]
    return [lens for lens in found if isinstance(lens, JacobianLens)]


def _together(done: Parts, only: JacobianLens) -> JacobianLens:
    """The lens of all languages; of one language, its own."""
    found = done.get(f"jacobian/{ALL}", only)
    assert isinstance(found, JacobianLens)
    return found


def _reading(done: Parts, tag: str, tags: list[str]) -> Mapping[str, FittedLens]:
    """What reads a language's texts: lenses of all languages, of it alone, of all but it."""
    found: dict[str, FittedLens] = {}
    if f"jacobian/{tag}" in done:
        (mine,) = _lenses(done, [tag])
        found["jacobian"] = _together(done, mine)
        if others := _lenses(done, [t for t in tags if t != tag]):
            found |= {"jacobian of it": mine, "jacobian without it": pooled(others)}
    if isinstance(lens := done.get(f"tuned/{ALL}"), TunedLens):
        found["tuned"] = lens
    return found


def _of_all(done: Parts, tags: list[str]) -> dict[str, Lens]:
    """The lenses of all languages, and Jacobian ones of each."""
    found: dict[str, Lens] = {}
    if own := _lenses(done, [tag for tag in tags if f"jacobian/{tag}" in done]):
        found["jacobian"] = _together(done, own[0])
        if len(own) > 1:
            found |= {f"jacobian of {lens.languages[0]}": lens for lens in own}
    if isinstance(lens := done.get(f"tuned/{ALL}"), TunedLens):
        found["tuned"] = lens
    return found


def _cut(texts: list[Prompt], model: HookedModel, study: FitLensStudy) -> list[Prompt]:
    """Passages of no more tokens than were asked for, or than the model reads."""
    from xlens.lens.tuned import heads

    return heads(model, texts, study.max_tokens)
