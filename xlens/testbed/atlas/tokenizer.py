"""The atlas's own tokenizer: whole names as pieces, everything else from words, letters and bytes.

A `tokenizers` Unigram model in which every piece of more than one character is equally probable and
a letter much less so: of all ways to cut a text, the one with the fewest pieces wins. A name is one
piece wherever it stands, in quotes, after a space or between Chinese characters, because spaces
belong to the words of the wordings (`The ` `currency ` `of ` `Japan` ` is `), never to names. So a
name has one embedding, and the same string in two languages has the same one.
"""

import json
import re
from pathlib import Path
from typing import Any

from xlens import files
from xlens.languages import endonym
from xlens.testbed.atlas import wordings
from xlens.testbed.atlas.world import LANGUAGES, World

BOS = "<s>"  # also ends a document
PAD = "<pad>"
_PUNCTUATION = r""":"\-,=—→?.¿。，：？؟،।"""
_WORD = re.compile(rf"\n| ?[^\s{_PUNCTUATION}]+ ?| ?[{_PUNCTUATION}]+ ?")
_PIECE, _LETTER, _BYTE = -10.0, -25.0, -60.0


def pieces(world: World) -> list[str]:
    """Every piece of more than one character, and every character of the text, in stable order."""
    found = {name for names in world.words.values() for name in names.values()}
    names = {endonym(language) for language in LANGUAGES}
    found |= names | {f"{name} " for name in names}
    for stretch in wordings.texts():
        found |= set(_WORD.findall(stretch))
    found |= {". ", "।" + " ", "\n"}  # between the sentences of a context, and between lines
    letters = {letter for piece in found for letter in piece}
    letters |= {chr(code) for code in range(0x20, 0x7F)}
    return sorted(letters) + sorted(piece for piece in found if len(piece) > 1)


def build_tokenizer(world: World) -> Any:
    """A `PreTrainedTokenizerFast` that begins every text with `<s>`."""
    from tokenizers import Tokenizer, decoders, normalizers, processors
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    rows: list[tuple[str, float]] = [(PAD, 0.0), (BOS, 0.0), ("<unk>", 0.0)]
    rows += [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    # Single characters that stand alone as words (`的`, `. `) are pieces like others.
    alone = {name for names in world.words.values() for name in names.values() if len(name) == 1}
    alone |= {w for stretch in wordings.texts() for w in _WORD.findall(stretch) if len(w) == 1}
    rows += [
        (piece.replace(" ", "▁"), _LETTER if len(piece) == 1 and piece not in alone else _PIECE)
        for piece in pieces(world)
    ]
    tokenizer = Tokenizer(Unigram(rows, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BOS} $A", special_tokens=[(BOS, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=PAD,
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write `tokenizer.json` and its config, the same bytes for the same tokenizer."""
    path = folder / "tokenizer.json"
    with files.told(folder, "a tokenizer"):
        tokenizer.save_pretrained(str(folder))
        plain = json.loads(path.read_text(encoding="utf-8"))
        files.write(path, json.dumps(plain, ensure_ascii=False))
