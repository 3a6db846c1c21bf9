"""Facts asked in 12 languages after 3 demonstrations, against one prompt at a time.

The model is Gemma 3 270M itself, as the tokenizer decides how long prompts and answers are; where
the extra `gemma` isn't installed, or with --quick, it is the atlas, after one demonstration. One
prompt at a time is `generate` of transformers on each prompt and, for the candidates, a forward
pass for each: a sample, another in every round, stands for all, as prompts have nothing to do with
each other there. xlens is given more of the same facts, as it batches them; both stop at the line's
end and at the same length.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Times, interleaved, ratios, settings, shipped
from tables import Row, write

import xlens
from xlens.models import HookedModel
from xlens.tasks.facts import Facts, ask_facts, cldr_facts, fact_prompts, offers, rank_facts
from xlens.tasks.facts.asking import room_of

LANGUAGES = ("en", "fr", "es", "de", "pt", "it", "ca", "ru", "uk", "zh-Hans", "ja", "ko")
CANDIDATES = 10
FACTS, SAMPLE = 10, 18
"""Facts that xlens is asked in each language; prompts that are asked one at a time in a round."""
FEW = 4
"""Of these prompts, those whose candidates are ranked one at a time."""


def main() -> None:
    args = settings(__doc__, rounds=1)
    name = shipped(quick=args.quick)
    real = name != "atlas"
    model = xlens.load(name, device="cpu", dtype=torch.float32)
    shots = 3 if real else 1  # the atlas reads 256 tokens at most
    every = cldr_facts(list(LANGUAGES))
    asked = every.sample(4 if args.quick else FACTS, seed=0)
    n = len(asked) * len(LANGUAGES)
    sample, few = (4, 2) if args.quick else (SAMPLE, FEW)
    offered = offers(asked, every, CANDIDATES)
    how: dict[str, Any] = {"shots": shots, "pool": every, "progress": False}
    alone = Alone(model, asked, every, shots)
    small = every.sample(1, seed=1)
    answers = {
        "xlens": partial(ask_facts, model, asked, **how),
        PEER: alone.sampled(alone.answer, sample),
    }
    warm = partial(ask_facts, model, small, **how)
    times: dict[str, dict[str, Times]] = {
        "answers": interleaved(answers, args.rounds, warm=dict.fromkeys(answers, warm))
    }
    ranking = {
        "xlens": partial(rank_facts, model, asked, offered, **how),
        PEER: alone.sampled(partial(alone.rank, offered), few),
    }
    times["ranking"] = interleaved(ranking, args.rounds, warm=dict.fromkeys(ranking, warm))
    setting = f"{model.name}, {len(LANGUAGES)} languages × {len(asked)} facts, {shots} shots"
    taken = {"answers": sample, "ranking": few}
    rows = [
        Row(
            what,
            setting,
            PEER,
            ratios(times[name][PEER], times[name]["xlens"], scale=n / taken[name]),
            note=f"One at a time: {taken[name]} of {n} prompts a round, × {n / taken[name]:g}.",
        )
        for what, name in (
            ("answers to facts", "answers"),
            (f"facts' own objects among {CANDIDATES}", "ranking"),
        )
    ]
    whole = {
        who: [
            sum(times[name][who].cpu[r] / (n if who == "xlens" else taken[name]) for name in taken)
            for r in range(args.rounds)
        ]
        for who in ("xlens", PEER)
    }
    both = [one / mine for one, mine in zip(whole[PEER], whole["xlens"], strict=True)]
    rows.append(Row("facts asked and ranked, as `xlens facts` does", setting, PEER, both,
                    target="≥ 4"))  # fmt: skip
    write("facts", rows, args, times=times)


PEER = "usual: one prompt at a time"


class Alone:
    """Facts asked as one would with transformers alone."""

    def __init__(self, model: HookedModel, facts: Facts, pool: Facts, shots: int) -> None:
        self.model, self.facts, self.pool = model, facts, pool
        self.room = room_of(facts, model.tokenizer)
        prompts = [p for tag in LANGUAGES for p in fact_prompts(facts, tag, shots=shots, pool=pool)]
        order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(0)).tolist()
        self.prompts = [prompts[i] for i in order]
        line = model.tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
        self.ends = [model.tokenizer.eos_token_id, line]

    def sampled(self, ask: Callable[[Any], object], n: int) -> Callable[[], object]:
        """The next `n` prompts at every call."""
        calls = 0

        @torch.inference_mode()
        def run() -> list[object]:
            nonlocal calls
            start = calls * n % len(self.prompts)
            calls += 1
            return [ask(prompt) for prompt in self.prompts[start : start + n]]

        return run

    def answer(self, prompt: Any) -> str:
        """Greedy, to the end of the line."""
        given = self.model.tokenizer(prompt.text, return_tensors="pt")
        ids = given["input_ids"]
        made = self.model.hf_model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=self.room,
            do_sample=False,
            eos_token_id=self.ends,
            pad_token_id=self.ends[0],
        )
        return str(self.model.tokenizer.decode(made[0, ids.shape[1] :]))

    def rank(self, offered: Any, prompt: Any) -> list[float]:
        """Each candidate's log-probability, from a pass of its own."""
        own = self.pool.facts(prompt.language)
        before = self.model.tokenizer(prompt.text)["input_ids"]
        found: list[float] = []
        for id in offered.ids.get(prompt.id, ()):
            text = f"{prompt.text} {own[id].objects[0]}"
            ids = torch.tensor([self.model.tokenizer(text)["input_ids"]])
            n = max(1, ids.shape[1] - len(before))
            logits = self.model.hf_model(ids, use_cache=False, logits_to_keep=n + 1).logits[0]
            scores = logits[:-1].log_softmax(-1).gather(1, ids[0, -n:, None])
            found.append(float(scores.sum()))
        return found


if __name__ == "__main__":
    main()
