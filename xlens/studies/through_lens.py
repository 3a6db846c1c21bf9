"""What studies that read states layer by layer have in common: the lens that they read through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from xlens.errors import InputError
from xlens.studies.study import Study

if TYPE_CHECKING:
    from xlens.activations import Activations
    from xlens.lens import Lens
    from xlens.models import HookedModel

LOGIT = "logit"


@dataclass(frozen=True, kw_only=True)
class ThroughLens(Study):
    """Studies that read states layer by layer.

    Attributes:
        lens: What states below the last are read through: logit, jacobian=PLACE or tuned=PLACE, a
            run of `xlens fit-lens` or the folder or file of a lens; jacobian alone is the published
            one of the model.
    """

    SIDE_BY_SIDE: ClassVar[bool] = False
    """Whether several lenses can be asked for."""

    lens: tuple[str, ...] = (LOGIT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lens == type(self).lens:
            return
        kinds = [text.partition("=")[0] for text in self.lens]
        if not kinds or len(set(kinds)) < len(kinds):
            raise InputError(
                f"lens is {list(self.lens)}; accepted is one or more of logit, jacobian and tuned, "
                "each once."
            )
        if len(kinds) > 1 and not self.SIDE_BY_SIDE:
            raise InputError(
                f"lens is {list(self.lens)}; accepted is one, as everything is read through it. "
                "Ask once with each; `xlens lens` reads words through several side by side."
            )

    def check_lenses(self) -> None:
        """Refuse what is no lens, before a model is loaded.

        Raises:
            ValueError: one that isn't there.
        """
        if {*self.lens} - {LOGIT}:
            from xlens.lens.places import lens_files, lens_kind

            for kind, place in map(lens_kind, self.lens):
                if place:
                    lens_files(kind, place)

    def lens_digests(self) -> dict[str, dict[str, str]]:
        """Of `Study.digest`: what each lens but the logit lens is; without one nothing.

        Raises:
            ValueError: one that isn't there.
        """
        if not {*self.lens} - {LOGIT}:
            return {}
        from xlens.lens.places import lens_digest

        return {"lens": {lens: lens_digest(lens) for lens in self.lens if lens != LOGIT}}

    def found_lens(
        self, model: "HookedModel", states: "Callable[[], Activations]", asked: str | None = None
    ) -> "Lens":
        """The lens that is asked for; one of unknown origin must say what the model says.

        Args:
            model: Whose states are read.
            states: Of its prompts, at all points; asked for where the lens's origin isn't known.
            asked: Which; None: the only one.

        Raises:
            ValueError: a lens of another model, as far as that can be told.
        """
        from xlens.lens.places import find_lens
        from xlens.lens.readings import trusted

        return trusted(model, find_lens(asked or self.lens[0], model), states)


def unasked(study: Any, of: str, switch: str, names: tuple[str, ...]) -> None:
    """Refuse options of something that isn't asked for.

    Args:
        study: Whose fields they are.
        of: What they are of.
        switch: What asks for it.
        names: Of the fields.

    Raises:
        ValueError: one is not as usual.
    """
    usual = {name: field.default for name, field in study.__dataclass_fields__.items()}
    if given := [name for name in names if getattr(study, name) != usual[name]]:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{shown}: of {of}, which isn't asked for ({switch}).")
