"""Words in which several studies ask for parallel sentences."""

from typing import Literal

SentenceLayout = Literal["sib200", "ntrex", "pud", "udhr", "aligned", "tsv"]
"""How sentences lie there: see `xlens.tasks.sentences.read_sentences`."""
Twin = Literal["script", "words", "characters"]
"""What is made of a text beside it: see `xlens.tasks.sentences.with_twins`."""
