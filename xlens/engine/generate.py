"""`generate`: greedy continuations in batches, each as if its prompt were alone."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pandas as pd
import torch
from torch import Tensor

from xlens.checks import typed
from xlens.engine.backoff import pass_budget
from xlens.engine.decode import Job, continued
from xlens.engine.executors import Executor
from xlens.engine.halving import Note, until_done
from xlens.engine.interventions import Interventions, check, spans
from xlens.engine.plan import Tokens
from xlens.engine.progress import token_bar
from xlens.engine.request import Execution, Request, Shard, Subject, split
from xlens.engine.stored import answered, made_by
from xlens.engine.trust import shares_prefixes
from xlens.errors import InputError
from xlens.models import HookedModel, Vocabulary
from xlens.prompts import Prompt, Prompts, PromptsLike, TokenizedPrompt
from xlens.results import Result, analysed
from xlens.store import Parts, Store, digest

_SPARE = 8  # tokens that `room_for` adds
SHARD_PROMPTS = 64
GENERATION = "generation"
"""The room in provenance of how texts were made."""
Reason = Literal["stop", "eos", "length"]
Stop = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Generations(Result):
    """What a model wrote after each prompt.

    Attributes:
        table: One row per prompt, in the prompts' order: `id language text n_tokens reason tokens`.
            `text` follows the prompt as it stands, a leading space included, and ends before the
            stop string; halves of characters at its end show as `�`. `reason` is `stop`, `eos` or
            `length`. `tokens` are all that were generated, those of the stop string and the
            end-of-sequence token included; `n_tokens` is their number.
    """

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def generate(
    model: HookedModel,
    prompts: PromptsLike,
    *,
    max_new_tokens: int = 32,
    stop: Stop | Mapping[str, Stop] | Mapping[tuple[str, str], Stop] | None = None,
    interventions: Interventions = (),
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> Generations:
    """Continue prompts by the most probable token each time (greedy decoding).

    A continuation does not depend on the other prompts: in fp32 the same tokens as alone, with any
    token budget and in any order, as long as no two tokens are equally probable to rounding.
    Common beginnings run once, prompts that are done leave, logits are fp32. The tokenizer's EOS
    ends a continuation, and so do the end-of-sequence tokens of the model's `generation_config`;
    no other setting of that plays a part.

    Args:
        model: From `xlens.load`.
        prompts: What to continue.
        max_new_tokens: Most tokens to generate after each prompt.
        stop: Strings that end a continuation, at the first that is complete: for all prompts, or a
            mapping from each prompt's id, or (id, language), to its own.
        interventions: From `add`, `project_out` and `patch`, applied in this order. Slot `all` acts
            on prompt and continuation, `generated` on the continuation alone (from the second
            generated token's prediction on), others on the prompt alone.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most prompt tokens in a pass, padding included; out of memory halves it.
        store: A `Store` or its folder: what it holds is not computed again, a killed run goes on
            where it was. None keeps nothing on disk.
        progress: Show a bar.
        executor: Where it runs, as for `harvest`.

    Raises:
        ValueError: a prompt that is empty or whose continuation could pass the model's context, an
            empty stop string, a prompt without stop strings in the mapping, or interventions that
            can't be done; all before the model runs. Also when a state is not finite.
        MemoryError: a single prompt doesn't fit in memory.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}; it must be at least 1 token.")
    items = list(Prompts.of(prompts))
    stops = [_stops(prompt, stop) for prompt in items]
    tokens = model.tokenize(items, prepend_bos=prepend_bos, spans=spans(interventions))
    _require_room(model, tokens, max_new_tokens)
    request = GenerateRequest(
        subject=Subject.of(model, tokens),
        tokens=tuple(tokens),
        edits=check(interventions, model, tokens, ends=[len(t) for t in tokens]),
        split=split(len(items), SHARD_PROMPTS),
        max_new_tokens=max_new_tokens,
        stops=tuple(stops),
        eos=tuple(sorted(_ends(model))),
    )
    how = Execution(token_budget=token_budget, store=store, progress=progress, executor=executor)
    with answered(model, [request], how) as entries:
        found = request.compute(model, how)[1] if entries is None else entries[0].rows()
        came = made_by(entries)
    found["tokens"] = [list(map(int, ids)) for ids in found["tokens"]]
    found.insert(0, "id", [p.id for p in items])
    found.insert(1, "language", [p.language for p in items])
    asked = {
        "max_new_tokens": max_new_tokens,
        "stop": {str(k): v for k, v in stop.items()} if isinstance(stop, Mapping) else stop,
        "decoding": "greedy",
        "eos": [str(model.tokenizer.convert_ids_to_tokens(i)) for i in request.eos],
    }
    origin = {**request.subject.provenance, **came, "interventions": request.edits.key}
    return Generations(provenance=analysed(origin, GENERATION, asked), table=found)


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerateRequest(Request):
    """Continuations.

    Attributes:
        max_new_tokens: Most tokens after each prompt.
        stops: What ends each prompt's.
        eos: Tokens that end any.
    """

    kind: ClassVar[str] = "generate"
    max_new_tokens: int
    stops: tuple[tuple[str, ...], ...]
    eos: tuple[int, ...]

    def decided(self) -> dict[str, Any]:
        """What ends a continuation."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "stops": digest(self.stops),
            "eos": self.eos,
            # Writes the text, and so finds the stop strings.
            "tokenizer": self.subject.provenance["tokenizer"],
        }

    def part(self, start: int, stop: int) -> Self:
        """The request for prompts `start:stop`, in one shard."""
        return replace(super().part(start, stop), stops=self.stops[start:stop])

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """A row for each prompt; a shard holds a tensor, and this one its size."""
        texts = _run(model, self, pass_budget(model, how.token_budget), how.progress, parts)
        table = pd.DataFrame(
            {
                "text": [text.text for text in texts],
                "n_tokens": [len(text.ids) for text in texts],
                "reason": [text.reason for text in texts],
                "tokens": [text.ids for text in texts],
            }
        )
        return {"n": torch.tensor(len(table))}, table


@typed
def room_for(texts: Iterable[str], tokenizer: Any = None, *, least: int = 1) -> int:
    """A limit on new tokens that cuts off none of these texts: scripts differ threefold in tokens.

    Args:
        texts: Right answers, say, as they would follow a prompt.
        tokenizer: Of the model; None: not known, as a served model's: a token for every byte.
        least: The limit is no lower.

    Returns:
        As many as the longest text has, and a few more for the end of a line or turn and a word
        before.
    """
    every = list(dict.fromkeys(texts))
    if tokenizer is None or not every:
        counts = [len(text.encode()) for text in every]
    else:
        counts = [len(ids) for ids in tokenizer(every, add_special_tokens=False)["input_ids"]]
    return max(least, max(counts, default=0) + _SPARE)


@dataclass
class _Text:
    """The continuation of one sequence so far.

    Attributes:
        model: Whose tokens they are.
        vocab: Of the model.
        stops: What ends it.
        eos: Tokens that end it.
        room: Most tokens.
        prompt: What it continues.
        ids: Its tokens.
        written: What they write, in bytes: a character can come in several tokens.
        reason: Why it ended; None while it goes on.
    """

    model: HookedModel
    vocab: Vocabulary
    stops: tuple[str, ...]
    eos: frozenset[int]
    room: int
    prompt: Prompt
    ids: list[int] = field(default_factory=list[int])
    written: bytes = b""
    reason: Reason | None = None

    @property
    def text(self) -> str:
        return self.written.decode(errors="replace")

    def take(self, token: int) -> bool:
        """Append a token; whether there is more to come."""
        if token < 0:
            raise InputError(
                f"After {len(self.ids)} tokens the last state of prompt {self.prompt.id!r} "
                f"({self.prompt.language}) is not finite: {self.model.name} in {self.model.dtype} "
                "overflowed, or an intervention is too strong. fp16 overflows at 65,504 (Gemma's "
                "residual passes it): load the model in float32 or bfloat16."
            )
        self.ids.append(token)
        if self._stopped(token):
            self.reason = "stop"
        elif token in self.eos:
            self.reason = "eos"
        elif len(self.ids) == self.room:
            self.reason = "length"
        return self.reason is None

    def _stopped(self, token: int) -> bool:
        if token in self.vocab.special:
            # It writes nothing, but can be named: '<end_of_turn>'.
            return self.model.tokenizer.convert_ids_to_tokens(token) in self.stops
        before = len(self.written)
        if self.vocab.kind == "plain":  # its pieces do not simply follow each other
            self.written = self.model.tokenizer.decode(self.ids, skip_special_tokens=True).encode()
            before = 0
        else:
            self.written += self.vocab.pieces[token] or b""
        ends = [s.encode() for s in self.stops]
        # A match is new: it ends in what was just written.
        places = [self.written.find(end, max(0, before - len(end) + 1)) for end in ends]
        if places := [at for at in places if at >= 0]:
            self.written = self.written[: min(places)]
        return bool(places)


def _run(
    model: HookedModel,
    request: GenerateRequest,
    budget: int,
    progress: bool,
    parts: Parts | None,
) -> list[_Text]:
    """Continue all prompts; out of memory halves the budget and goes on with what is left.

    Those that `parts` has are only written out again.
    """
    tokens, stops, edits = request.tokens, request.stops, request.edits
    room, eos = request.max_new_tokens, frozenset(request.eos)
    codes = edits.codes([t.ids for t in tokens])
    same: dict[tuple[Tokens, tuple[str, ...]], list[int]] = {}
    for i, each in enumerate(zip(codes, stops, strict=True)):
        same.setdefault(each, []).append(i)
    cached, vocab = shares_prefixes(model), model.vocab
    found: dict[int, _Text] = {}
    kept: dict[str, Tensor] = {}
    if parts is not None:
        kept = {"ids": torch.full((1, len(tokens), room), -1)}
        parts.restore(sorted(parts.done), kept, _own_rows)
        for i in sorted(parts.done):
            found[i] = _Text(model, vocab, stops[i], eos, room, tokens[i].prompt)
            for token in kept["ids"][0, i].tolist():
                if token < 0 or not found[i].take(token):
                    break
    owners = [mine for mine in same.values() if not found.keys() >= set(mine)]
    lengths = [len(tokens[mine[0]]) for mine in owners]
    with (
        token_bar("generate", tokens, progress) as advance,
        model.evaluating(),
        torch.inference_mode(),
    ):
        advance(list(found))

        def attempt(left: Sequence[int], budget: int, note: Note) -> Generator[Sequence[int]]:
            note(left, sum(lengths[i] for i in left))
            firsts = [owners[i][0] for i in left]
            texts = [_Text(model, vocab, stops[i], eos, room, tokens[i].prompt) for i in firsts]
            job = Job(
                model,
                [tokens[i].ids for i in firsts],
                [codes[i] for i in firsts],
                {k: owners[i] for k, i in enumerate(left)},
                edits,
                room,
                lambda k, token: texts[k].take(token),
            )
            for done in continued(job, budget, cached=cached):
                for k in done:
                    mine = owners[left[k]]
                    found.update(dict.fromkeys(mine, texts[k]))
                    if parts is not None:
                        kept["ids"][0, mine, : len(texts[k].ids)] = torch.tensor(texts[k].ids)
                        parts.keep(mine, kept, _own_rows)
                    advance(mine)
                yield [left[k] for k in done]

        advice = "Shorten it, generate fewer tokens, or use a smaller dtype or model."
        until_done(lengths, budget, attempt, advice=advice)
    return [found[i] for i in range(len(tokens))]


def _own_rows(_: str, sequences: Sequence[int]) -> list[int]:
    return list(sequences)


def _ends(model: HookedModel) -> frozenset[int]:
    """Tokens that end a continuation: the tokenizer's EOS, and those of the generation config.

    Checkpoints exist in which either lacks what the other has. The model's own config counts only
    where there is no other: it is rarely kept up.
    """
    configs: list[Any] = [getattr(model.hf_model, "generation_config", None), model.config]
    named = (getattr(config, "eos_token_id", None) for config in configs)
    ids = next((ids for ids in named if ids is not None), ())
    own = model.tokenizer.eos_token_id
    return frozenset([*([ids] if isinstance(ids, int) else ids), *([] if own is None else [own])])


def _stops(
    prompt: Prompt,
    stop: Stop | Mapping[str, Stop] | Mapping[tuple[str, str], Stop] | None,
) -> tuple[str, ...]:
    given: Any = stop
    if isinstance(stop, Mapping):
        table: Mapping[Any, Stop] = stop
        given = table.get((prompt.id, prompt.language), table.get(prompt.id))
        if given is None:
            raise InputError(
                f"stop has nothing for prompt {prompt.id!r} ({prompt.language}): map its id, or "
                "(id, language), to its stop strings; [] for none."
            )
    strings = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(strings):
        raise InputError(f"stop is {stop!r:.200}; an empty string would stop before any token.")
    return strings


def _require_room(model: HookedModel, tokens: Sequence[TokenizedPrompt], room: int) -> None:
    for t in tokens:
        # The last token that is generated is not read again.
        if model.n_ctx is not None and len(t) + room - 1 > model.n_ctx:
            raise InputError(
                f"Prompt {t.prompt.id!r} ({t.prompt.language}) has {len(t)} tokens, and "
                f"max_new_tokens={room} could pass the {model.n_ctx} that {model.name} reads. "
                "Shorten the prompt or generate fewer tokens."
            )
