"""`xlens.training.train` against a plain Trainer loop: the same rows, batches, LoRA and schedule.

The peer is what one writes by hand: peft's `get_peft_model` and transformers' `Trainer`, which
writes no checkpoint and logs nothing. xlens's time holds its rows' tokens, its checkpoint with
digests and its result. Rows have the lengths of translated questions of XQuAD.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from common import (
    draw_ids,
    interleaved,
    make_model,
    ratios,
    scratch_folder,
    settings,
    text_of,
    twin_of,
)
from tables import Row, write

from xlens.models import HookedModel
from xlens.training import Recipe, train
from xlens.training.fit import target_modules
from xlens.training.rows import Rows, encode

PLAIN = "a plain transformers Trainer loop"
PROMPT, COMPLETION = (70, 110, 90, 130), (20, 30, 25, 35)  # tokens, in turn


def main() -> None:
    args = settings(__doc__, rounds=2)
    model = make_model("Gemma 3 270M", quick=args.quick)
    recipe = Recipe(batch=4, accumulate=2, epochs=1, learning_rate=2e-4)
    n_rows = 2 * recipe.batch * recipe.accumulate
    prompts, completions = (
        [text_of(ids) for ids in draw_ids((lengths * n_rows)[:n_rows], seed=seed)]
        for seed, lengths in enumerate((PROMPT, COMPLETION))
    )
    completions = [f" {text}" for text in completions]
    rows = encode(model.tokenizer, prompts, completions, longest=recipe.cutoff)
    with scratch_folder() as folder:
        free = (folder / str(n) for n in count())

        def ours(n: int = n_rows) -> None:
            train(model, prompts[:n], completions[:n], next(free), recipe=recipe, progress=False)

        few = recipe.batch
        setting = f"Gemma 3 270M's shape, {n_rows} rows of {rows.n_tokens:,} tokens"
        times = interleaved(
            {"xlens": ours, PLAIN: plain(model, rows, recipe, folder)},
            args.rounds,
            warm={
                "xlens": partial(ours, few),
                PLAIN: plain(model, Rows(rows.ids[:few], rows.learned[:few]), recipe, folder),
            },
        )
    row = Row(
        "steps of a LoRA in a second",
        setting,
        PLAIN,
        ratios(times[PLAIN], times["xlens"]),
        target="≥ 0.9",
        note=f"{recipe.batch} rows a batch, {recipe.accumulate} batches a step.",
    )
    seconds = min(times["xlens"].cpu.values())
    measured = {"tokens_per_cpu_second": round(rows.n_tokens / seconds, 1)}
    write(
        "training",
        [row],
        args,
        times={setting: times},
        notes=[f"xlens trained on {measured['tokens_per_cpu_second']:,} tokens a CPU second."],
        measured=measured,
    )


def plain(model: HookedModel, rows: Rows, recipe: Recipe, folder: Path) -> Callable[[], object]:
    """Such a loop, from a fresh adapter on each call."""
    import peft
    from transformers import (
        DataCollatorForSeq2Seq,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    config = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.weight,
        target_modules=list(target_modules(model, recipe)),
        task_type="CAUSAL_LM",
    )
    arguments = TrainingArguments(
        output_dir=str(folder / "plain"),
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        seed=recipe.seed,
    )

    def loop() -> object:
        wrapper = peft.get_peft_model(twin_of(model), config)
        # What is usual for prompts and completions: labels padded by -100, logits everywhere.
        usual = DataCollatorForSeq2Seq(model.tokenizer)
        trainer = Trainer(wrapper, arguments, train_dataset=rows, data_collator=usual)
        trainer.remove_callback(PrinterCallback)
        return trainer.train()

    return loop


if __name__ == "__main__":
    main()
