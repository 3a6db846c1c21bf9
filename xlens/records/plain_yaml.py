"""YAML that means what it says: `no` is Norwegian, and no option is given twice.

Names of values that are repeated elsewhere (`&a`, `*a`) aren't read: a few lines of them can stand
for more than any memory holds, and options have no use for them.
"""

import re
from typing import Any

import yaml


class _Unnamed(yaml.SafeLoader):
    """YAML without anchors and aliases, which can stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark: Any = self.peek_event()  # pyright: ignore[reportUnknownMemberType]
        if getattr(mark, "anchor", None) is not None:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"anchors and aliases (here {str(mark.anchor)!r:.40}) are not read; write the "
                "value where it is wanted",
                mark.start_mark,
            )
        return super().compose_node(parent, index)


class _Plain(_Unnamed):
    """YAML 1.1 reads yes, no, on and off as truth values; here, as in 1.2, these are texts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)  # pyright: ignore[reportUnknownMemberType]
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} stands there twice; keep one", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))  # pyright: ignore[reportUnknownMemberType]
        return int(text, 0) if "x" in text or "o" in text else int(text)


# YAML 1.2's core kinds. In 1.1, `no` is a truth value, `010` is 8, `1:30` is 90 and `2001-01-01` a
# date.
_KINDS = {
    "null": ("|~|null|Null|NULL", ["", *"~nN"]),
    "bool": ("true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": ("[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
}
# Emptied first: `add_implicit_resolver` would else copy PyYAML's of YAML 1.1, and add to these.
_Plain.yaml_implicit_resolvers = {}
for _kind, (_form, _first) in _KINDS.items():
    _Plain.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_form})\Z"), _first
    )
_Plain.add_constructor("tag:yaml.org,2002:int", _Plain.construct_whole)


def read_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: broken YAML, a name that stands twice in one mapping, anchors and aliases,
            or what is no value of its kind (a whole number of 5,000 digits).
    """
    return _read(text, _Plain)


def read_dumped(text: str) -> Any:
    """What `yaml.safe_dump` wrote of plain values.

    Raises:
        yaml.YAMLError: it is something else: broken, or with anchors and aliases.
    """
    return _read(text, _Unnamed)


def _read(text: str, loader: type[_Unnamed]) -> Any:
    try:
        return yaml.load(text, loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply for options") from None
    except (ValueError, TypeError) as error:
        raise yaml.YAMLError(f"{error}") from None
