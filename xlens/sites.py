"""Sites: the named places inside a block where a pass can be read and changed. One record each.

| site | what it is | TransformerLens |
|---|---|---|
| `resid` | the residual stream at points 0..n_layers | `hook_resid_pre` of 0, `hook_resid_post` |
| `z` | what the heads give, side by side, before they are mixed | `attn.hook_z` |
| `attn_out` | what attention adds to the stream, after a norm that follows it | `hook_attn_out` |
| `mlp_gate` | the gate's activation, where there is one | act(`mlp.hook_pre`) |
| `mlp_post` | what goes into the MLP's down projection | `mlp.hook_post` |
| `mlp_out` | what the MLP adds to the stream, as `attn_out` | `hook_mlp_out` |

Where a family has them is in its record, `xlens.models.families`; `xlens.models.sites` goes there.
"""

from dataclasses import dataclass
from typing import Literal

from xlens.errors import InputError

RESID = "resid"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A place inside a block.

    Attributes:
        name: What it is called.
        hook: What TransformerLens calls it, inside a block; None where it has no such hook.
        module: The attribute of a `Family` that says the module, and none where there is none.
        side: Of the module: what goes in, or what comes out.
        width: The attribute of a `Family` with the module whose inputs are as many; None for
            `d_model`.
        scale: The attribute of a `Family` that says by what the block multiplies it.
        heads: Whether it is made of heads side by side.
        of_expert: Whether experts have it in an MLP's place, each its own.
    """

    name: str
    hook: str | None
    module: str
    side: Literal["in", "out"]
    width: str | None = None
    scale: str | None = None
    heads: bool = False
    of_expert: bool = False


# In the order in which a pass comes by.
_RECORDS = (
    Site(name="z", hook="attn.hook_z", module="z", side="in", width="z", heads=True),
    Site(
        name="attn_out",
        hook="hook_attn_out",
        module="attn_out",
        side="out",
        scale="attn_scale",
    ),
    Site(
        name="mlp_gate",
        hook=None,
        module="gate",
        side="out",
        width="down",
        of_expert=True,
    ),
    Site(
        name="mlp_post",
        hook="mlp.hook_post",
        module="down",
        side="in",
        width="down",
        of_expert=True,
    ),
    Site(name="mlp_out", hook="hook_mlp_out", module="mlp_out", side="out", scale="mlp_scale"),
)
INSIDE = {site.name: site for site in _RECORDS}
SITES = (RESID, *INSIDE)
"""All names."""


def known_site(site: str) -> str:
    """A site by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if site not in SITES:
        raise InputError(f"Unknown site {site!r}; sites are {', '.join(SITES)}.")
    return site


def hook_name(site: str, layer: int) -> str:
    """What TransformerLens calls a site.

    Raises:
        ValueError: it has no name there.
    """
    if site == RESID:
        return "blocks.0.hook_resid_pre" if layer == 0 else f"blocks.{layer - 1}.hook_resid_post"
    if (hook := INSIDE[known_site(site)].hook) is None:
        has = ", ".join([RESID, *(name for name, each in INSIDE.items() if each.hook)])
        raise InputError(
            f"TransformerLens has no hook for site {site!r}; it has {has}. Its mlp.hook_pre is the "
            "gate before the activation function."
        )
    return f"blocks.{layer}.{hook}"


def has_heads(site: str) -> bool:
    """Whether heads lie side by side there."""
    return site != RESID and INSIDE[site].heads
