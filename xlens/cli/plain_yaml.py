"""YAML that means what it says: `no` is Norwegian, and no option is given twice."""

import re
from typing import Any

import yaml


class _Plain(yaml.SafeLoader):
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


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TRUTH = re.compile("true|True|TRUE|false|False|FALSE")
_Plain.add_implicit_resolver("tag:yaml.org,2002:bool", _TRUTH, list("tTfF"))


def read_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: broken YAML, or a name that stands twice in one mapping.
    """
    return yaml.load(text, _Plain)
