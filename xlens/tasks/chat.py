"""Questions as turns of a chat, by a tokenizer's own template."""

from collections.abc import Sequence
from typing import Any

from xlens.errors import InputError
from xlens.prompts import Prompt
from xlens.tasks.trial import require_end


def in_chat(alone: Prompt, asked: Sequence[tuple[str, str]], tokenizer: Any) -> Prompt:
    """A question as the last user turn of a chat; its spans moved to where it stands.

    A template that can ask for an answer without thinking aloud first is told to.

    Args:
        alone: The question.
        asked: Questions and their answers that came before: the turns of demonstrations.
        tokenizer: Whose chat template writes the turns.

    Raises:
        ValueError: a tokenizer without a chat template, or a template that changes the question,
            fails, or does not come to an end.
    """
    name = getattr(tokenizer, "name_or_path", "")
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"The tokenizer {name!r} has no chat template; use "
            "an instruction-tuned model, or leave chat= out."
        )
    turns = [
        turn
        for question, answer in asked
        for turn in (
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        )
    ]
    turns.append({"role": "user", "content": alone.text})
    # Models that think first (Qwen 3) would spend the answer's tokens on it; other templates do not
    # read the variable.
    how = {"add_generation_prompt": True, "enable_thinking": False}
    try:
        template = tokenizer.get_chat_template()
        require_end(template, turns, {**how, **tokenizer.special_tokens_map})
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, **how))
    except Exception as error:  # a template is a program, and may fail in any way
        raise InputError(
            f"The chat of item {alone.id!r} can't be written with the template of the tokenizer "
            f"{name!r}: {error} Use another checkpoint, or leave chat= out."
        ) from error
    # BOS is left to the tokenizer where the tokens stay the same: not where it puts a space before
    # a text but none behind BOS (Llama's kind), or where white space stands before BOS.
    bare = text.removeprefix(tokenizer.bos_token or "")
    if tokenizer(bare)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]:
        text = bare
    # The last one: a demonstration before it may hold the same text.
    at = text.rfind(alone.text)
    if at < 0:
        raise InputError(
            f"The chat template changes the text of item {alone.id!r}, so its spans are lost; "
            "leave chat= out."
        )
    spans = {name: (at + a, at + b) for name, (a, b) in alone.spans.items()}
    if asked:
        begin = text.find(asked[0][0])
        spans["demonstrations"] = (begin, text.rfind(asked[-1][1], begin, at) + len(asked[-1][1]))
    return Prompt(text, alone.language, alone.id, spans, alone.meta)
