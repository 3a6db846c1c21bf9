"""Sites inside blocks: read, changed, kept, shared and batched as the residual stream is."""

import kit
import pytest
import torch

import tiny
import xlens
from xlens import Prompt, Prompts, harvest
from xlens.activations import Activations
from xlens.engine import harvest_variants
from xlens.engine.interventions import add, patch, project_out, scale, set_to
from xlens.models import sites
from xlens.sites import INSIDE, SITES, hook_name

CLOSE = 2e-5  # relative, fp32
# One of each kind: fused gate, a norm after, output plus residual, one row for all tokens,
# experts in some blocks, a scale on what is added, heads wider than the stream.
KINDS = ("gpt2", "gemma3", "bloom", "phi3", "opt", "deepseek_v3", "granite", "glm4", "falcon, 7B")
REST = [family for family in tiny.ALL if family not in KINDS]
BRIDGED = ("llama", "gpt2", "gemma3", "gpt_neox", "bloom", "qwen3")


def states(model, site, prompts=None, **options):
    prompts = kit.mixed()[:6] if prompts is None else prompts
    options = {"slots": "all", "progress": False} | options
    return harvest(model, prompts, site=site, **options)


def begun():
    """Prompts with a common beginning, long enough to be shared."""
    head = "".join(tiny.TEXT.values())[:90]
    return Prompts([Prompt(head + p.text[:25], p.language, p.id) for p in kit.mixed()[:5]])


def added_makes_the_next_point(model):
    found = {site: states(model, site) for site in ("resid", "attn_out", "mlp_out")}
    inside = (found["attn_out"], found["mlp_out"])
    for block in set(inside[0].layers) & set(inside[1].layers):  # a Mamba has no attention
        parts = [acts.slot().values[acts.layers.index(block)] for acts in found.values()]
        after = found["resid"].slot().values[block + 1]
        assert kit.relative_error(sum(parts), after) < CLOSE


def batched_is_alone_and_shared_is_not(model):
    prompts = begun()
    for site in sites.offered(model):
        alone = [states(model, site, [p], share_prefixes=False) for p in prompts]
        for options in ({"token_budget": 300, "share_prefixes": False}, {"token_budget": 700}):
            acts = states(model, site, prompts, **options)
            assert acts.site == site and acts.d_model == sites.width_at(
                model, sites.places(model, site, acts.layers)
            )
            for i, one in enumerate(alone):
                assert kit.relative_error(acts.rows("all", i), one.rows("all", 0)) < CLOSE


def slots_are_of_all_tokens(model):
    prompts = kit.mixed()[:4]
    asked = ["word:mean", "word:sum", "word:last", "last", "word:each", "all"]
    for site in sites.offered(model):
        acts = states(model, site, prompts, slots=asked, token_budget=120)
        for i, tokens in enumerate(model.tokenize(prompts, spans=frozenset({"word"}))):
            every = acts.rows("all", i)
            own = every[:, slice(*tokens.spans["word"])]
            for slot, wanted in {
                "word:mean": own.mean(1, keepdim=True),
                "word:sum": own.sum(1, keepdim=True),
                "word:last": own[:, -1:],
                "word:each": own,
                "last": every[:, -1:],
            }.items():
                assert kit.relative_error(acts.rows(slot, i), wanted) < CLOSE, (site, slot)


@pytest.mark.parametrize("family", KINDS)
def test_what_is_added_makes_the_next_point(family):
    added_makes_the_next_point(kit.fresh(family))


@pytest.mark.parametrize("family", KINDS)
def test_batched_is_alone_and_shared_is_not(family):
    batched_is_alone_and_shared_is_not(kit.fresh(family))


@pytest.mark.parametrize("family", ["gemma3", "bloom", "gpt_neo"])
def test_slots_are_of_all_tokens(family):
    slots_are_of_all_tokens(kit.fresh(family))


@pytest.mark.slow
@pytest.mark.parametrize("family", REST)
def test_every_family_at_every_site(family):
    model = kit.fresh(family)
    batched_is_alone_and_shared_is_not(model)
    slots_are_of_all_tokens(model)
    if {"attn_out", "mlp_out"} <= sites.offered(model).keys():
        added_makes_the_next_point(model)


@pytest.mark.parametrize("family", BRIDGED)
def test_the_bridges_hooks_of_the_same_name(family, family_dir):
    model = kit.model(family_dir(family))
    prompt = kit.mixed()[4]
    ids = torch.tensor([list(model.tokenize([prompt])[0].ids)])
    names = [s for s in SITES if s != "mlp_gate"]
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(ids, prepend_bos=False)
    for site in names:
        acts = states(model, site, [prompt])
        for name, mine in acts.to_cache(0).items():
            theirs = cache[name]
            assert mine.shape == theirs.shape, name
            assert kit.relative_error(mine, theirs) < 1e-4, name
        meta = acts.meta[["id", "language", "n_tokens"]]
        back = Activations.from_cache(
            dict(cache.items()), meta, fingerprint=model.fingerprint, site=site
        )
        assert back.layers == acts.layers and back.n_heads == acts.n_heads
        assert kit.relative_error(back.slot().values, acts.slot().values) < 1e-4
    if model.family.gated:
        gate = states(model, "mlp_gate", [prompt]).slot().values[0]
        act = model.blocks[0].get_submodule(model.family.activation)
        assert kit.relative_error(gate, act(cache["blocks.0.mlp.hook_pre"][0]).detach()) < 1e-4


def test_heads_have_an_axis_and_a_width_of_their_own(family_dir):
    model = kit.model(family_dir("gemma3"))  # 4 heads of 24 beside 64
    acts = states(model, "z", slots="last")
    assert acts.d_model == 96 == sites.width(model, "z") and acts.n_heads == 4
    assert acts.heads().shape == (4, 6, 4, 24)
    assert torch.equal(acts.heads().flatten(2), acts.slot().values)
    for wrong in (4, -1, [0, 4]):
        with pytest.raises(ValueError, match=r"There is no head (4|-1): .* heads 0 to 3"):
            sites.head_units(model, wrong)
    with pytest.raises(ValueError, match=r"At least one head is needed"):
        sites.head_units(model, [])
    with pytest.raises(TypeError, match=r"heads of head_units: True"):
        sites.head_units(model, True)
    with pytest.raises(ValueError, match=r"site 'z'; this is 'resid'"):
        states(model, "resid").heads()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "granite", "opt"])
@pytest.mark.parametrize("site", INSIDE)
def test_interventions_at_every_site(family, site):
    model = kit.fresh(family)
    if site not in sites.offered(model):
        return
    prompts, wide = kit.mixed()[:4], sites.width(model, site)
    plain = states(model, site, prompts, slots="last")
    vector = torch.randn(wide, generator=torch.Generator().manual_seed(0))
    where = {"site": site, "layers": 1, "slot": "last"}

    def read(how):
        return states(model, site, prompts, slots="last", interventions=how).get(layer=1)

    own = plain.get(layer=1)
    assert kit.relative_error(read(add(vector, strength=2.0, **where)), own + 2 * vector) < CLOSE
    direction = vector / vector.norm()
    gone = own - (own @ direction)[:, None] * direction
    assert kit.relative_error(read(project_out(vector[None], **where)), gone) < CLOSE
    assert kit.relative_error(read(patch(vector, **where)), vector.expand_as(own)) < CLOSE
    units = [0, 3, wide - 1]
    wanted = own.clone()
    wanted[:, units] *= 3
    assert kit.relative_error(read(scale(units, 3.0, **where)), wanted) < CLOSE
    wanted[:, units] = torch.tensor([1.0, -2.0, 0.5])
    assert kit.relative_error(read(set_to(units, [1.0, -2.0, 0.5], **where)), wanted) < CLOSE
    # Its own states patched in change nothing; others' give the others'.
    assert kit.relative_error(read(patch(plain, **where)), own) < CLOSE
    # And what is changed there goes on.
    pushed = states(model, "resid", prompts, interventions=add(vector, **where))
    before = states(model, "resid", prompts)
    assert kit.relative_error(pushed.slot().values[:2], before.slot().values[:2]) < CLOSE
    assert kit.relative_error(pushed.slot().values[2], before.slot().values[2]) > 1e-3


def test_a_units_factor_of_one_and_other_units_change_nothing(family_dir):
    model = kit.model(family_dir("llama"))
    own = states(model, "mlp_post")
    same = states(model, "mlp_post", interventions=scale([5], 1.0, site="mlp_post", layers="all"))
    assert torch.equal(own.slot().values, same.slot().values)


def test_an_ablated_head_is_the_bridges(family_dir):
    model = kit.model(family_dir("llama"))
    prompt = kit.mixed()[3]
    ids = torch.tensor([list(model.tokenize([prompt])[0].ids)])
    off = scale(sites.head_units(model, 2), 0.0, site="z", layers=1)
    mine = states(model, "resid", [prompt], interventions=off).slot().values[-1]

    def hook(z, hook):
        z[:, :, 2] = 0
        return z

    seen = {}
    model.bridge.run_with_hooks(
        ids,
        prepend_bos=False,
        fwd_hooks=[
            ("blocks.1.attn.hook_z", hook),
            (hook_name("resid", model.n_layers), lambda x, hook: seen.update(x=x.detach())),
        ],
    )
    assert kit.relative_error(mine, seen["x"][0]) < 1e-4


def test_generation_and_scores_follow_a_change_inside(family_dir):
    model = kit.model(family_dir("qwen3"))
    prompts = kit.mixed()[:3]
    off = set_to(range(20), 5.0, site="mlp_post", layers=[0, 2])
    how = {"max_new_tokens": 5, "progress": False}
    made = xlens.generate(model, prompts, interventions=off, **how).table["tokens"].tolist()
    with xlens.engine.interventions.intervene(model, off):
        for prompt, tokens in zip(model.tokenize(prompts), made, strict=True):
            ids = list(prompt.ids)
            for token in tokens:
                with torch.inference_mode():
                    assert int(model.hf_model(torch.tensor([ids])).logits[0, -1].argmax()) == token
                ids.append(token)


def test_variants_at_heads_are_one_call_each(family_dir):
    """A causal map of heads: each one off in turn."""
    model = kit.model(family_dir("gemma3"))
    prompts = kit.mixed()[:5]
    variants = {
        f"{layer}.{head}": scale(sites.head_units(model, head), 0.0, site="z", layers=layer)
        for layer in (1, 3)
        for head in range(4)
    }
    for site, layers in (("resid", [-1]), ("mlp_out", [2, 3])):
        options = {"layers": layers, "slots": ["last", "word:mean"], "progress": False}
        found = harvest_variants(model, prompts, variants, site=site, **options)
        for name, how in variants.items():
            one = harvest(model, prompts, site=site, interventions=how, **options)
            assert found[name].site == site and found[name].layers == one.layers
            for slot in one.slots:
                mine, wanted = found[name].slot(slot).values, one.slot(slot).values
                assert kit.relative_error(mine, wanted) < CLOSE


def test_a_sum_is_the_mean_times_the_span(family_dir):
    model = kit.model(family_dir("llama"))
    for site in ("resid", "mlp_post"):
        acts = states(model, site, slots=["word:sum", "word:each"], token_budget=100)
        for i in range(len(acts)):
            wanted = acts.rows("word:each", i).sum(1, keepdim=True)
            assert kit.relative_error(acts.rows("word:sum", i), wanted) < CLOSE
    with pytest.raises(ValueError, match=r"is a sum, which has no place"):
        add(torch.ones(64), layers=1, slot="word:sum")


def test_kept_and_read_again(family_dir, tmp_path):
    model = kit.model(family_dir("gemma3"))
    own = {site: states(model, site, slots="last") for site in ("resid", "z", "mlp_post")}
    for _ in range(2):
        for site, wanted in own.items():
            got = states(model, site, slots="last", store=tmp_path / "store")
            assert got.site == site and got.n_heads == wanted.n_heads
            assert torch.equal(got.slot().values, wanted.slot().values)
    for site, wanted in own.items():
        got = Activations.load(wanted.save(tmp_path / site))
        assert (got.site, got.n_heads, got.layers) == (site, wanted.n_heads, wanted.layers)
        assert torch.equal(got.slot().values, wanted.slot().values)


def test_where_the_activation_function_gives_its_output(family_dir):
    assert sites.activation_site(kit.model(family_dir("llama"))) == "mlp_gate"
    assert sites.activation_site(kit.model(family_dir("gpt2"))) == "mlp_post"


def test_what_there_is_not(family_dir):
    gpt2, llama = kit.model(family_dir("gpt2")), kit.model(family_dir("llama"))
    with pytest.raises(ValueError, match=r"no site 'mlp_gate'; it has resid, z, attn_out, mlp_p"):
        states(gpt2, "mlp_gate")
    with pytest.raises(ValueError, match=r"Unknown site 'mlp'; sites are resid, z"):
        states(gpt2, "mlp")
    with pytest.raises(ValueError, match=r"blocks 0 to 2"):
        states(gpt2, "z", layers=3)
    with pytest.raises(ValueError, match=r"is given 64 dimensions, but site 'mlp_post' .* has 96"):
        states(llama, "z", interventions=add(torch.ones(64), layers=0, site="mlp_post"))
    with pytest.raises(ValueError, match=r"no unit 96: site 'mlp_post'"):
        states(llama, "z", interventions=scale([96], 0.0, layers=0, site="mlp_post"))
    with pytest.raises(ValueError, match=r"are of site 'z', and site 'mlp_out' is changed"):
        at = {"layers": 0, "site": "mlp_out"}
        states(llama, "z", interventions=patch(states(llama, "z", slots="last"), **at))
    with pytest.raises(ValueError, match=r"no hook for site 'mlp_gate'"):
        states(llama, "mlp_gate").to_cache(0)
    experts = kit.fresh("mixtral")
    with pytest.raises(ValueError, match=r"no site 'mlp_post' .*router's experts, mlp\.experts"):
        states(experts, "mlp_post")
    some = kit.fresh("deepseek_v3")
    assert states(some, "mlp_post").layers == (0,)
    with pytest.raises(ValueError, match=r"Block 1 .* no 'mlp_post' .*experts.*blocks \[0\]"):
        states(some, "mlp_post", layers=[0, 1])
    mamba = kit.fresh("mamba")
    for asked in (lambda: states(mamba, "z"), lambda: sites.head_units(mamba, 0)):
        with pytest.raises(ValueError, match=r"no site 'z'; it has resid\."):
            asked()


def test_places_are_numbers_in_the_order_of_a_pass():
    order = [2, *(sites.Place(site, 2) for site in INSIDE), 3]
    assert sorted(order[::-1]) == order and [int(p) for p in order] == [2] * 6 + [3]
    import pickle

    assert repr(pickle.loads(pickle.dumps(order[1]))) == "blocks.2.z"
    assert 2 < float(order[1]) < float(order[2]) < 3
