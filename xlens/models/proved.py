"""What was found of a model at its first load, so that the next one need not run it.

Whether xlens reads a model rightly (its readout, its attention, that no token sees what follows)
takes seven short passes, and brings all its weights into memory. For the same weights and the same
software the answer is the same.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from xlens import files
from xlens.models.computation import attention_of, code_of, computation
from xlens.models.fingerprint import config_text
from xlens.models.hooked import HookedModel
from xlens.models.sources import Source
from xlens.results import versions


def prove(model: HookedModel, source: Source, checks: Callable[[], None]) -> None:
    """Run checks of a model that was just loaded, unless it passed them before.

    Args:
        model: The model, as it comes from its source.
        source: Whose weights a digest or a commit names; of others all is checked each time.
        checks: Raise where something is wrong.

    Raises:
        ValueError: what `checks` raises.
    """
    note = _note(model, source)
    if note is not None and note.is_file():
        model.trust_attention()
        return
    before = attention_of(model.hf_model)
    checks()
    if note is not None and attention_of(model.hf_model) == before:  # else it is changed each time
        with suppress(OSError):  # in a cache that can't be written to, all is checked each time
            files.make(note.parent)
            files.write(note, files.sealed_json({"model": model.name, "checked": True}))


def _note(model: HookedModel, source: Source) -> Path | None:
    weights = source.digest or (source.revision if source.kind == "hub" else None)
    if weights is None:
        return None
    said = {
        "weights": [source.kind, source.name, weights],
        "config": config_text(model.config),
        "tokens": len(model.tokenizer),
        "dtype": str(model.dtype),
        "devices": list(map(str, model.devices)),
        "attention": attention_of(model.hf_model),
        "computation": computation(model.hf_model),
        "versions": versions(),
        # Where a checkout changes what is checked, and keeps its version.
        "checks": code_of(Path(__file__).parent),
    }
    name = blake2b(json.dumps(said, sort_keys=True, default=str).encode(), digest_size=8)
    return files.cache_root() / "models" / f".proved-{name.hexdigest()}.json"
