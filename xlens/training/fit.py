"""`train`: a LoRA on a model, by transformers' Trainer, that goes on where it was stopped."""

import json
import logging
import random
import shutil
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from inspect import signature
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from xlens import files
from xlens.checks import typed
from xlens.errors import InputError, StoreError
from xlens.models import HookedModel
from xlens.models.adapters import INSTALL, SEAL, base_now, check_sealed
from xlens.models.sharing import sharing
from xlens.results import Result, analysed
from xlens.training.recipe import Recipe
from xlens.training.rows import Rows, collate, encode, loss

SERIES, FINAL, RESULT, MARK = "checkpoints", "adapter", "result", "training.json"
_WEIGHTS = "adapter_model.safetensors"
CURVE = ("step", "epoch", "loss", "learning_rate", "grad_norm")
_AGAIN = "Delete the folder, and train again."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Training(Result):
    """A trained adapter, and how its training went.

    Attributes:
        curve: `step epoch loss learning_rate grad_norm`: loss in nats a learned token, the mean of
            the step's batches before its update.
        adapter: Folder of the adapter: `xlens.load(base, adapter=…)`; of one that was saved, the
            name within the training's folder, which may have been moved since.
        checkpoints: Folder of those on the way, a series: `--revisions all`; likewise.
        digest: Of the adapter's weights.
        n_rows: Trained on.
        left_out: Rows that were too long.
        n_tokens: Of the rows.
        n_learned: Of these, tokens with a loss.
        n_weights: Of the adapter.
        targets: Modules that have one, by the end of their names.
    """

    curve: pd.DataFrame
    adapter: str
    checkpoints: str
    digest: str
    n_rows: int
    left_out: int
    n_tokens: int
    n_learned: int
    n_weights: int
    targets: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """`curve`."""
        return self.curve


@typed
def train(
    model: HookedModel,
    prompts: Sequence[str],
    completions: Sequence[str],
    folder: str | Path,
    *,
    recipe: Recipe = Recipe(),
    made_by: dict[str, Any] | None = None,
    progress: bool = True,
) -> Training:
    """Train a LoRA to continue each prompt with its completion; the model itself stays as it is.

    The adapter is trained on a copy of the model's modules that shares its weights, so that the
    base is in memory once. Loss falls on the completions only. Training is seeded; stopped at any
    instant, the same call goes on from the last whole checkpoint, and on a CPU ends with the same
    weights.

    Args:
        model: The base, from `xlens.load`.
        prompts: What is read.
        completions: What is learned, one for each prompt.
        folder: Gets `adapter/`, the checkpoints on the way and what they were made from.
        recipe: How.
        made_by: What made the rows, for provenance.
        progress: Show a bar with the loss.

    Raises:
        ValueError: peft isn't installed; no module to adapt; rows that `encode` refuses; a folder
            of another training; no room on the disk.
        OSError: a checkpoint could not be written; says what to do.
    """
    peft = _peft()
    place = Path(folder)
    targets = target_modules(model, recipe)
    longest = min(recipe.cutoff, model.n_ctx or recipe.cutoff)
    rows = encode(model.tokenizer, prompts, completions, longest=longest)
    known = {
        "base": model.fingerprint,
        "rows": blake2b(json.dumps([rows.ids, rows.learned]).encode()).hexdigest(),
        "recipe": recipe.options(),
        "targets": list(targets),
    }
    one, processes = _processes(model, recipe)
    with one.main_process_first():  # it marks the folder as this training's; the others find that
        done = _taken_up(place, known)
    if done is not None:
        return done
    with _seeded(recipe.seed), files.told(place, "a checkpoint"):
        config = peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.weight,
            lora_dropout=recipe.dropout,
            target_modules=list(targets),
            task_type="CAUSAL_LM",
            fan_in_fan_out=_fans_in(model, targets),
        )
        wrapper = peft.get_peft_model(sharing(model.hf_model), config)
        base, stated = base_now(model), wrapper.peft_config["default"]
        stated.base_model_name_or_path, stated.revision = base.name, base.revision
        # Else each checkpoint asks the hub whether the base's vocabulary has grown.
        wrapper.save_pretrained = partial(wrapper.save_pretrained, save_embedding_layers=False)
        weights = sum(p.numel() for p in wrapper.parameters() if p.requires_grad)
        _check_room(place, weights, _n_checkpoints(rows, recipe))
        shown = progress and one.is_main_process
        trainer = _trainer(wrapper, model, rows, place, recipe, shown, processes)
        began = perf_counter()
        try:
            trainer.train(resume_from_checkpoint=_last_whole(place / SERIES))
        except RuntimeError as error:
            if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
                raise
            raise StoreError(f"{error}".splitlines()[0]) from error  # torch's words for a full disk
        seconds = perf_counter() - began
        if one.is_main_process:
            with files.replacing(place / FINAL) as draft:
                wrapper.save_pretrained(str(draft))
                (draft / "README.md").unlink(missing_ok=True)
                files.seal(draft, SEAL, {})
        one.wait_for_everyone()
    log = [row for row in trainer.state.log_history if "loss" in row]
    # As far as it was not taken up from an earlier run.
    how = {**recipe.options(), "seconds": round(seconds, 1)}
    done = Training(
        provenance=analysed(model.provenance(), "training", {**(made_by or {}), **how}),
        curve=pd.DataFrame([{n: row.get(n) for n in CURVE} for row in log], columns=[*CURVE]),
        adapter=FINAL,
        checkpoints=SERIES,
        digest=files.digest(place / FINAL / _WEIGHTS),
        n_rows=len(rows),
        left_out=rows.left_out,
        n_tokens=rows.n_tokens,
        n_learned=rows.n_learned,
        n_weights=weights,
        targets=targets,
    )
    if one.is_main_process:
        done.save(place / RESULT)
    one.wait_for_everyone()
    return _placed(done, place)


def _placed(done: Training, place: Path) -> Training:
    """With the folders where they lie now."""
    return replace(
        done, adapter=str((place / FINAL).resolve()), checkpoints=str((place / SERIES).resolve())
    )


@typed
def target_modules(model: HookedModel, recipe: Recipe = Recipe()) -> tuple[str, ...]:
    """Ends of the names of the modules that get an adapter.

    Raises:
        ValueError: there are none of these, or none by default; says which there are.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as usual
    from transformers.pytorch_utils import Conv1D

    linear = (torch.nn.Linear, Conv1D)
    there = {
        name.rpartition(".")[2]
        for name, module in model.body.named_modules()
        if isinstance(module, linear)
    }
    wanted = recipe.targets
    if not wanted:
        kind = str(getattr(model.config, "model_type", ""))
        of_paper = ("q_proj", "v_proj")
        wanted = of_paper if set(of_paper) <= there else tuple(usual.get(kind, ()))
    missing = sorted({*wanted} - there)
    if missing or not wanted:
        shown = ", ".join(missing) if wanted else "q_proj and v_proj, or what peft takes for it"
        raise InputError(
            f"{model.name} has no modules {shown} to adapt; its matrices are "
            f"{', '.join(sorted(there))}. Name some of these: targets, --targets."
        )
    return tuple(wanted)


def _fans_in(model: HookedModel, targets: Sequence[str]) -> bool:
    """Whether matrices are written the other way round, as GPT-2's."""
    from transformers.pytorch_utils import Conv1D

    named = model.body.named_modules()
    return any(isinstance(m, Conv1D) for name, m in named if name.rpartition(".")[2] in targets)


def _processes(model: HookedModel, recipe: Recipe) -> tuple[Any, int]:
    """This process among those that `accelerate launch` or torchrun started, and how many.

    Raises:
        ValueError: the passes of a step can't be dealt to them.
    """
    from accelerate import PartialState

    one = PartialState(cpu=model.device.type == "cpu")
    if recipe.accumulate % one.num_processes:
        raise InputError(
            f"accumulate is {recipe.accumulate}, and {one.num_processes} processes share the "
            "passes of a step: accepted are multiples of that, so that a step is of the same rows."
        )
    return one, one.num_processes


def _trainer(
    wrapper: Any,
    model: HookedModel,
    rows: Rows,
    place: Path,
    recipe: Recipe,
    progress: bool,
    processes: int,
) -> Any:
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from xlens.training.bar import Bar

    on_cpu = model.device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(place / SERIES),
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate // processes,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="epoch" if recipe.save_every is None else "steps",
        save_steps=recipe.save_every or 500,
        bf16=recipe.precision == "bfloat16",
        fp16=recipe.precision == "float16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        seed=recipe.seed,
        data_seed=recipe.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        average_tokens_across_devices=processes > 1,
        ddp_find_unused_parameters=False if processes > 1 else None,
    )
    # Else one process would spread each pass over all GPUs of the machine, several times the rows.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]
    pad = model.tokenizer.pad_token_id
    keeps = "logits_to_keep" in signature(model.hf_model.forward).parameters
    trainer = Trainer(
        wrapper,
        arguments,
        train_dataset=rows,
        data_collator=partial(collate, pad=0 if pad is None else int(pad), whole=not keeps),
        compute_loss_func=loss,
        callbacks=[_sealing(), Bar(progress)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _sealing() -> Any:
    """What brings each checkpoint down to the disk, and writes the digests of its files."""
    from transformers import TrainerCallback

    class Sealing(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not state.is_world_process_zero:
                return  # one of them writes
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for name in ("README.md", "training_args.bin"):  # a pickle, with a path of this machine
                (folder / name).unlink(missing_ok=True)
            # Named last, so that a checkpoint with its digests is whole.
            for path in folder.iterdir():
                files.sync(path)
            files.seal(folder, SEAL, {})
            files.sync(folder.parent)

    return Sealing()


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Everything random starts from the seed, and goes on afterwards where it was."""
    state, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), warnings.catch_warnings():
        # peft asks transformers by the old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numbers)


def _n_checkpoints(rows: Rows, recipe: Recipe) -> int:
    steps = recipe.epochs * len(rows) / (recipe.batch * recipe.accumulate)
    return recipe.epochs + 1 if recipe.save_every is None else int(steps / recipe.save_every) + 1


def _check_room(place: Path, weights: int, checkpoints: int) -> None:
    """Refuse a training whose checkpoints the disk has no room for."""
    files.make(place)
    needed = 4 * weights * 3 * checkpoints  # float32, and Adam's two moments
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"{checkpoints} checkpoints need about {needed / 1e6:,.0f} MB, and the disk of "
            f"{str(place)!r} has {free / 1e6:,.0f} MB left. Make room, give another folder, or "
            "keep fewer: save_every, --save-every."
        )


def _last_whole(series: Path) -> str | None:
    """The latest checkpoint that is as it was written; torn ones and damaged ones go."""
    found: dict[int, Path] = {}
    for folder in series.glob("checkpoint-*"):
        step = folder.name.rpartition("-")[2]
        if (folder / SEAL).is_file() and step.isdecimal():
            found[int(step)] = folder
        else:
            files.remove(folder)  # a kill struck while it was written
    for _, folder in sorted(found.items(), reverse=True):
        try:
            check_sealed(folder, again="It is deleted, and trained again from the one before.")
        except files.DamagedError as error:
            _log.warning("%s", error)
            files.remove(folder)
        else:
            return str(folder)
    return None


def _taken_up(place: Path, known: dict[str, Any]) -> Training | None:
    """What is there already: a finished training, or None to begin or to go on.

    Raises:
        ValueError: another training's.
    """
    mark = place / MARK
    if not mark.is_file():
        if place.is_dir() and any(not files.is_draft(p) for p in place.iterdir()):
            raise InputError(
                f"{str(place)!r} holds other files and no training: give a new or empty folder."
            )
        with files.told(place, "a training"):
            files.make(place)
            files.write(mark, files.sealed_json(known))
        return None
    was = files.unsealed_json(mark, mark.read_bytes(), _AGAIN)
    changed = sorted(n for n in known if was.get(n) != known[n])
    if changed:
        raise InputError(
            f"{str(place)!r} holds a training with another {', '.join(changed)}: give another "
            "folder, or delete it first."
        )
    if not (place / RESULT).is_dir():
        return None
    done = Training.load(place / RESULT)
    weights = place / FINAL / _WEIGHTS
    if not weights.is_file() or files.digest(weights) != done.digest:
        raise files.damaged(weights, "it is missing or not what was written", _AGAIN)
    check_sealed(place / FINAL, again=_AGAIN)
    return _placed(done, place)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError(f"Training needs peft: {INSTALL}.") from error
    return peft
