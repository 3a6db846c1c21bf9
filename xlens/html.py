"""HTML: filled into Jinja2 templates, which escape all that is filled in.

Templates lie in the rooms whose pages they are (`figures/templates`, `report/templates`) and are
named after them: `figures/page.html`. Nothing else of xlens writes tags.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

_ROOMS = ("figures", "report")


def render(template: str, **given: Any) -> Markup:
    """A template filled in.

    Args:
        template: Its name.
        given: What it names; all text of it is escaped but what another `render` has made.

    Returns:
        HTML, which isn't escaped again where it is filled in elsewhere.

    Raises:
        jinja2.UndefinedError: the template names what isn't given.
    """
    return Markup(_environment().get_template(template).render(given))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined

    return Environment(
        loader=PrefixLoader({room: PackageLoader("xlens", f"{room}/templates") for room in _ROOMS}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
