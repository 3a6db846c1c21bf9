"""A bar with the loss, instead of a line of output a step."""

from typing import Any

from transformers import TrainerCallback

from xlens.bars import tqdm


class Bar(TrainerCallback):
    """Shows how far a training is.

    Args:
        shown: Whether it shows anything.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar, where training goes on from."""
        total, at = state.max_steps, state.global_step
        self._bar = tqdm(
            total=total, initial=at, desc="training", unit="step", disable=not self._shown
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One step further."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the loss."""
        if self._bar is not None and "loss" in (logs or {}):
            self._bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()
