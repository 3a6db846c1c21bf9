"""Training adapters: LoRA on a causal language model, with the loss on what is to be said."""

from xlens._lazy import lazy

_PUBLIC = {
    "Recipe": "recipe",
    "Training": "fit",
    "encode": "rows",
    "train": "fit",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
