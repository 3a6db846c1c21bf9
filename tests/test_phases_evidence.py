"""Evidence from models: planted phases are found by every kind, and nothing in random weights."""

from dataclasses import replace

import kit
import numpy as np
import pandas as pd
import pytest
import torch
from phase_kit import asked, bed

import xlens
from xlens import phases
from xlens.engine.interventions import patch
from xlens.lens import LOGIT, TunedLens
from xlens.phases import KINDS, Asked
from xlens.phases.evidence import ablated, aligned, patched, readable
from xlens.phases.evidence.collect import _same_question
from xlens.phases.evidence.sweep import read_answers
from xlens.prompts import Prompt, Prompts


def run(made, model=None, **options):
    given = asked(made)
    return phases.evidence(
        model or made.model,
        given["asked"],
        question=given["question"],
        context=given["context"],
        progress=False,
        share_prefixes=False,
        **options,
    )


@pytest.mark.parametrize(
    ("where", "noise"),
    [((3, 1, 2), 0.0), ((4, 2, 4), 0.3)],
)
def test_planted_boundaries_are_found_by_every_kind(where, noise):
    depth, p, r = where
    curves = run(bed(depth=depth, question_layer=p, answer_layer=r, noise=noise))
    assert list(curves.kinds) == list(KINDS)
    found = phases.detect_phases(curves)
    row = found.row()
    assert (row["question"], row["answer"], row["found"]) == (p, r, True)
    assert row["question_low"] == row["question_high"] == p
    pooled = found.edges[(found.edges["language"] == "all") & (found.edges["edge"] != "encoding")]
    wanted = {"question": p, "answer": r}
    assert pooled["value"].tolist() == [wanted[edge] for edge in pooled["edge"]]
    # The question's relevance drowns in noise; what is changed and what can be read does not.
    sure = pooled[~pooled["kind"].str.startswith(("relevance_question", "depth"))]
    assert sure["found"].all()
    assert all(found.found(tag) for tag in ("en", "de"))


def test_random_weights_have_no_phases():
    made = bed(depth=4, question_layer=2, answer_layer=3)
    found = phases.detect_phases(run(made, made.model.random_twin(1)))
    assert not found.phases["found"].any()
    assert (found.phases["p_answer"] > 0.05).all()


def test_other_questions_answers_are_the_control():
    """With wrong answers for right ones everything turns round, and nothing is found."""
    made = bed(depth=4, question_layer=2, answer_layer=3)
    given = {k: Asked(x.prompts, x.others, x.answers) for k, x in asked(made).items()}
    kinds = ["patch_last_question", "ablate_context", "readable"]
    curves = phases.evidence(
        made.model,
        given["asked"],
        question=given["question"],
        context=given["context"],
        kinds=kinds,
        progress=False,
    )
    assert not phases.detect_phases(curves).edges["found"].any()
    right = run(made, kinds=kinds)
    np.testing.assert_allclose(curves.excess, -right.excess, atol=1e-4)


def test_a_leak_is_read_but_not_used():
    """A random head shows the question early; causal evidence is not taken in, and decides."""
    made = bed(depth=5, question_layer=3, answer_layer=5, leak=0.3)
    kinds = ["aligned_last", "patch_question", "patch_last_context"]
    found = phases.detect_phases(run(made, kinds=kinds))
    edges = found.edges[found.edges["language"] == "all"].set_index("kind")["value"]
    assert edges["aligned_last"] < 3 and edges["patch_question"] == 3
    assert (found.row()["question"], found.row()["answer"]) == (3, 5)


def test_patching_is_what_it_says():
    """The same numbers as a harvest with one intervention, read by the whole readout."""
    made = bed(depth=4, question_layer=2, answer_layer=3, noise=0.1)
    given = asked(made)
    model, own, donor = made.model, given["asked"], given["question"]
    curves = patched(
        model,
        own,
        donor,
        kind="patch_question",
        slot="question:each",
        layers=[1, 3],
        progress=False,
    )
    states = xlens.harvest(model, donor.prompts, slots="question:each", progress=False)
    ids = [
        model.tokenizer(a.strip(), add_special_tokens=False)["input_ids"][0] for a in donor.answers
    ]

    def said(how=()):
        kept = xlens.harvest(model, own.prompts, layers=4, interventions=how, progress=False)
        logits = model.readout.logits(kept.get("last", layer=4)).log_softmax(-1)
        return logits[torch.arange(len(ids)), torch.tensor(ids)].numpy()

    for i, layer in enumerate([1, 3]):
        shift = said(patch(states, layers=layer, slot="question:each")) - said()
        np.testing.assert_allclose(
            curves.get("patch_question", "values")[:, i], shift, rtol=1e-4, atol=1e-4
        )
    assert curves.layers == (1, 3)


def test_wiping_out_with_nothing_and_with_the_mean():
    made = bed(depth=4, question_layer=2, answer_layer=3)
    own = asked(made)["asked"]
    for fill in ("mean", "zero"):
        curves = ablated(
            made.model, own, kind="ablate_question", span="question", fill=fill, progress=False
        )
        excess = curves.get("ablate_question").mean(0)
        assert (excess[:2] > 1).all() and np.abs(excess[2:]).max() < 1e-3, fill
    with pytest.raises(ValueError, match="fill is 'noise'; accepted are 'mean' and 'zero'"):
        ablated(made.model, own, kind="ablate_question", span="question", fill="noise")


def test_relevance_that_is_there_is_used():
    made = bed(depth=4, question_layer=2, answer_layer=3)
    kinds = ["relevance_question", "depth_context"]
    own = asked(made)["asked"]
    tokens = phases.answer_tokens(made.model, own)[:, 0]
    right = xlens.relevance(
        made.model,
        own.prompts,
        targets=[int(t) for t in tokens],
        rule="attnlrp",
        slots=["question:sum", "context:sum"],
        progress=False,
    )
    anew, again = (run(made, kinds=kinds, layers=[0, 2, 3], right=given) for given in (None, right))
    np.testing.assert_allclose(anew.get("relevance_question"), again.get("relevance_question"))
    # All layers say where the depth is, also where it lies between those looked at.
    depth = phases.major_depth(right.get("context:sum").T, right.layers)
    inside = again.get("depth_context", "values")
    assert (inside.sum(1) == [sum(x <= d for x in (0, 2, 3)) for d in depth]).all()
    for wrong in (replace(right, rule="gradient"), replace(right, layers=(0, 1, 2, 3, 5))):
        with pytest.raises(ValueError, match="Leave it out, and it is computed"):
            run(made, kinds=kinds, layers=[4] if wrong.rule == "attnlrp" else "all", right=wrong)


def test_readable_in_three_measures():
    made = bed(depth=4, question_layer=1, answer_layer=3, noise=0.1)
    own = asked(made)["asked"]
    top = {m: readable(made.model, own, measure=m, progress=False) for m in ("rank", "top1")}
    top1 = top["top1"].get("readable", "values")
    assert (top1[:, 3:] == 1).all() and top1[:, :3].mean() < 0.5
    ranks = top["rank"].get("readable", "values")
    assert (ranks[:, 3:] == 0).all() and (ranks <= 0).all() and ranks[:, :3].mean() < -1
    assert (top["top1"].get("readable", "control")[:, 3:] == 0).all()


def test_readable_through_a_lens():
    made = bed(depth=4, question_layer=1, answer_layer=3, noise=0.1)
    own, d = asked(made)["asked"], made.model.d_model
    plain, usual = (readable(made.model, own, lens=x, progress=False) for x in (None, LOGIT))
    np.testing.assert_array_equal(plain.get("readable"), usual.get("readable"))
    lens = TunedLens(
        provenance={},
        matrices=np.stack([np.eye(d), -np.eye(d)]).astype(np.float32),
        offsets=np.empty(0, np.float32),
        layers=(1, 3),
        n_layers=4,
        training=pd.DataFrame(),
    )
    found = phases.evidence(made.model, own, kinds=["readable"], lens=lens, progress=False)
    values, before = found.get("readable", "values"), plain.get("readable", "values")
    assert np.isnan(values[:, [0, 2]]).all()  # that lens has no such points
    np.testing.assert_allclose(values[:, [1, 4]], before[:, [1, 4]], atol=1e-4)
    assert (values[:, 3] < before[:, 3] - 1).all()
    assert found.provenance["readable"]["through"] == lens.key
    assert "readable" not in plain.provenance


def test_alignment_needs_the_question_not_the_context():
    """States that hold nothing but the context are no nearer to the one than to the other."""
    made = bed(depth=4, question_layer=2, answer_layer=3)
    given = asked(made)
    own, donor = (
        xlens.harvest(made.model, given[k].prompts, progress=False) for k in ("asked", "question")
    )
    found = aligned(own, donor, kind="aligned_last", slot="last", n_layers=4)
    assert (found.get("aligned_last", "values")[:, 2:] == 1).all()
    assert (found.get("aligned_last")[:, :2] == 0).all()
    assert (found.get("aligned_last", "control") == 0).all()
    by_context = torch.randn(5, 8, own.d_model).repeat_interleave(2, dim=1)

    def filled(acts, noise):
        values = by_context + noise * torch.randn_like(by_context)
        return replace(acts, slots={"last": replace(acts.slot("last"), values=values)})

    torch.manual_seed(0)
    only = aligned(
        filled(own, 0.1), filled(donor, 0.1), kind="aligned_last", slot="last", n_layers=4
    )
    assert np.abs(only.excess.mean()) < 0.25
    german = own.select(languages=["de"]), donor.select(languages=["de"])
    with pytest.raises(ValueError, match="needs two"):
        aligned(*german, kind="aligned_last", slot="last", n_layers=4)
    with pytest.raises(ValueError, match="same ids, languages and layers"):
        aligned(own, german[1], kind="aligned_last", slot="last", n_layers=4)


def test_kinds_that_cannot_be_had_are_named():
    made = bed(depth=4, question_layer=2, answer_layer=3)
    own = asked(made)["asked"]
    with pytest.raises(ValueError, match=r"kinds=\['patch_question'\] can't be had here"):
        phases.evidence(made.model, own, kinds=["patch_question"])
    german = own.take([i for i, p in enumerate(own.prompts) if p.language == "de"])
    with pytest.raises(ValueError, match="aligned_… a second language"):
        phases.evidence(made.model, german, question=german, kinds=["aligned_last"])
    # Donors that ask something else have no answer to this question in their contexts.
    other = asked(made)["question"]
    for kind in ("patch_context", "patch_last_context"):
        with pytest.raises(ValueError, match="with the same question"):
            phases.evidence(made.model, own, context=other, kinds=[kind])
    shuffled = own.take(range(len(own))[::-1])
    with pytest.raises(ValueError, match="Donors must have the prompts' ids and languages"):
        phases.evidence(made.model, own, question=shuffled)


# --- questions and their partners ---


def test_a_token_that_is_not_known_has_no_probability():
    model = bed(depth=4, question_layer=2, answer_layer=3).model
    states = torch.zeros(1, 2, model.d_model)
    found = read_answers(model, states, np.array([[0, -1], [3, 0]]))
    assert np.isnan(found).tolist() == [[[False, True]], [[False, False]]]


def test_donors_that_ask_the_same_are_those_with_the_same_questions():
    def of(*texts):
        prompts = [
            Prompt.from_parts([("question", text), " A:"], language="en", id=str(n))
            for n, text in enumerate(texts)
        ]
        return phases.Asked(Prompts(prompts), (" x",) * len(texts), (" y",) * len(texts))

    assert _same_question(of("B?", "C?"), of("B?", "C?"), "question")
    for other in (of("A?", "C?"), of("C?", "C?")):
        assert not _same_question(of("B?", "C?"), other, "question")


def questions(languages=("en", "de")):
    """Three paragraphs of three, one and two questions."""
    prompts, answers = [], []
    for paragraph, n in enumerate((3, 1, 2)):
        for i in range(n):
            for language in languages:
                prompts.append(
                    Prompt.from_parts(
                        [("context", f"C{paragraph}. "), ("question", f"Q{i} {language}?"), " A:"],
                        language=language,
                        id=f"{paragraph}-{i}",
                        meta={"paragraph": paragraph},
                    )
                )
                answers.append(f" answer {paragraph}-{i}")
    return prompts, answers


def test_partners_share_the_context_and_not_the_answer():
    prompts, answers = questions()
    answers[2] = answers[0].upper()  # in English the first two questions have one answer
    own, donor = phases.same_context(prompts, answers)
    assert [p.id for p in own.prompts[::2]] == ["0-0", "0-1", "0-2", "2-0", "2-1"]
    assert [a[-3:] for a in donor.answers[1::2]] == ["0-2", "0-2", "0-0", "2-1", "2-0"]
    assert [p.id for p in donor.prompts] == [p.id for p in own.prompts]
    assert own.others == donor.answers and donor.others == own.answers
    for mine, theirs in zip(own.prompts, donor.prompts, strict=True):
        assert mine.language == theirs.language and mine.text != theirs.text
        assert mine.text.startswith(theirs.text[: theirs.spans["context"][1]])
    with pytest.raises(ValueError, match="No question has another one"):
        phases.same_context(prompts[6:8], answers[6:8])
    with pytest.raises(ValueError, match="has no 'page' in its meta"):
        phases.same_context(prompts, answers, by="page")
    with pytest.raises(ValueError, match="12 prompts come with 11 answers"):
        phases.same_context(prompts, answers[:-1])


def test_donors_of_another_context():
    own, _ = phases.same_context(*questions())
    donor = phases.other_context(own)
    assert [p.id for p in donor.prompts] == [p.id for p in own.prompts]
    assert (donor.answers, donor.others) == (own.answers, own.others)
    for mine, theirs in zip(own.prompts, donor.prompts, strict=True):
        assert mine.language == theirs.language and mine.part("context") != theirs.part("context")
        assert mine.part("question") == theirs.part("question")
        rest = [p.text.replace(p.part("context"), "…") for p in (mine, theirs)]
        assert rest[0] == rest[1]
    with pytest.raises(ValueError, match="have the same 'paragraph'"):
        phases.other_context(own.take(range(6)))


def test_contexts_that_hold_an_answer_are_passed_over():
    def prompt(name, context):
        parts = [("context", context), " ", ("question", "Who"), ": A:"]
        return Prompt.from_parts(parts, language="en", id=name, meta={"paragraph": name})

    told = {"a": "Bo met Al.", "b": "Di met Cy.", "c": "Ed met Bo.", "d": "Flo met Gus."}
    prompts = Prompts(prompt(name, context) for name, context in told.items())
    asked = Asked(prompts, (" Bo", " Di", " Ed", " Gus"), (" Al", " Cy", " Bo", " Flo"))
    donor = phases.other_context(asked)
    # From half way round: c for a, but it holds Bo.
    assert [p.part("context")[:2] for p in donor.prompts] == ["Fl", "Fl", "Di", "Di"]
    assert donor.prompts[0].part("question") == "Who" and donor.prompts[0].text.endswith(": A:")


def test_another_context_takes_the_answer_and_not_the_question():
    """Donors know the question: before retrieval nothing changes, and the boundary is exact."""
    made = bed(depth=6, question_layer=2, answer_layer=4)
    given = asked(made)
    own = given["asked"]
    named = Prompts(replace(p, meta={"paragraph": p.id}) for p in own.prompts)
    own = replace(own, prompts=named)
    curves = phases.evidence(
        made.model,
        own,
        question=given["question"],
        context=phases.other_context(own),
        kinds=["patch_last_question", "patch_last_context", "ablate_context"],
        progress=False,
    )
    found = phases.detect_phases(curves).row()
    assert (found["question"], found["answer"], found["found"]) == (2, 4, True)
    excess = np.nanmean(curves.get("patch_last_context"), axis=0)
    assert np.abs(excess[:4]).max() < 0.01 * excess[4]


def test_what_is_asked_is_checked():
    prompts, answers = questions(["en"])
    with pytest.raises(ValueError, match="6 prompts come with 6 answers and 1 wrong"):
        Asked(Prompts(prompts), tuple(answers), (" x",))
    with pytest.raises(ValueError, match="two different texts are needed"):
        Asked(Prompts(prompts), tuple(answers), tuple(answers))


def test_first_tokens_are_those_of_the_text(family_dir):
    model = kit.model(family_dir("gemma3"))
    prompt = Prompt("Q: dog? A:", "en", "1")

    def tokens(right, wrong, text=prompt.text):
        return phases.answer_tokens(
            model, Asked(Prompts([Prompt(text, "en", "1")]), (right,), (wrong,))
        )[0]

    (right, wrong) = tokens(" water", " book")
    whole = model.tokenizer("Q: dog? A: water")["input_ids"]
    assert right == whole[len(model.tokenizer("Q: dog? A:")["input_ids"])] and right != wrong
    assert tokens(" water", " water is cold").tolist() == [-1, -1]
    with pytest.raises(ValueError, match="End the prompt before the space"):
        tokens("the", "x", text="Where is ")


def test_prompts_that_cannot_tell_count_for_nothing():
    made = bed(depth=4, question_layer=2, answer_layer=3)
    given = asked(made)
    own, donor = given["asked"], given["question"]
    # One donor with a longer question, one whose answers begin alike.
    long = donor.prompts[0]
    span = long.spans["question"]
    text = long.text[: span[0]] + "? " + long.text[span[0] :]
    spans = {"question": (span[0], span[1] + 2)}
    prompts = [replace(long, text=text, spans=spans), *donor.prompts[1:]]
    others = [donor.others[0], donor.answers[1] + " .", *donor.others[2:]]
    changed = Asked(Prompts(prompts), donor.answers, tuple(others))
    curves = patched(
        made.model, own, changed, kind="patch_question", slot="question:each", progress=False
    )
    whole = np.isfinite(curves.get("patch_question")).all(1)
    assert whole.tolist() == [False, False] + [True] * (len(own) - 2)
    assert curves.provenance["evidence"]["left_out"] == {"patch_question": 2}
    last = patched(
        made.model, own, changed, kind="patch_last_question", slot="last", progress=False
    )
    assert np.isfinite(last.get("patch_last_question")).all(1).sum() == len(own) - 1
    both = phases.join_curves([curves, last]).provenance["evidence"]["left_out"]
    assert both == {"patch_question": 2, "patch_last_question": 1}


def test_a_question_that_ends_the_prompt_is_refused():
    made = bed(depth=4, question_layer=2, answer_layer=3)
    own = asked(made)["asked"]
    ends = [
        replace(p, spans={**p.spans, "question": (p.spans["question"][0], len(p.text))})
        for p in own.prompts
    ]
    longer = Asked(Prompts(ends), own.answers, own.others)
    for kinds in (["ablate_question"], ["relevance_question"]):
        with pytest.raises(ValueError, match="reaches the prompt's last token"):
            phases.evidence(made.model, longer, kinds=kinds, progress=False)


def test_evidence_that_was_cut_short_goes_on_with_the_same_bytes(tmp_path):
    made = bed(depth=3, question_layer=1, answer_layer=2)
    kinds = ["patch_last_question", "ablate_context", "readable", "relevance_question"]
    with kit.passes(made.model) as passes:
        whole = run(made, kinds=kinds, store=tmp_path / "whole")
    assert len(passes) > 8
    for stop in (len(passes) // 3, len(passes) // 3):
        with kit.passes(made.model, stop=stop), pytest.raises(KeyboardInterrupt):
            run(made, kinds=kinds, store=tmp_path / "cut")
    with kit.passes(made.model) as left:
        again = run(made, kinds=kinds, store=tmp_path / "cut")
    assert 0 < len(left) < len(passes) * 2 // 3
    assert stored_bytes(tmp_path / "cut") == stored_bytes(tmp_path / "whole")
    np.testing.assert_array_equal(again.excess, whole.excess)
    with kit.passes(made.model) as none:
        run(made, kinds=kinds, store=tmp_path / "cut")
    assert none == []


def stored_bytes(folder):
    kept = ("manifest.json", ".safetensors", ".parquet")
    files = [f for f in sorted(folder.rglob("*")) if f.name.endswith(kept)]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}
