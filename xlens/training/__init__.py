"""Training adapters: LoRA on a causal language model, with the loss on what is to be said."""

from typing import TYPE_CHECKING

from xlens._lazy import lazy

if TYPE_CHECKING:
    from xlens.training.fit import Training as Training
    from xlens.training.fit import train as train
    from xlens.training.recipe import Recipe as Recipe
    from xlens.training.rows import encode as encode

_PUBLIC = {
    "Recipe": "recipe",
    "Training": "fit",
    "encode": "rows",
    "train": "fit",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
