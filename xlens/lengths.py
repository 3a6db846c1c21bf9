"""By what scores of texts of unequal length are compared: options, candidates, answers.

A longer text is less probable, and tokens per word differ threefold between scripts; so do bytes.
No way of dividing by a length suits every language: name one, and see where another would choose
otherwise. In the words of lm-evaluation-harness (its issue 3278), `logprob` is `acc`,
`byte_logprob` is `acc_bytes` and `char_logprob` is `acc_norm`.
"""

from typing import TYPE_CHECKING, Literal, get_args

from xlens.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

By = Literal["logprob", "mean_logprob", "byte_logprob", "char_logprob"]
WAYS: tuple[By, ...] = get_args(By)
WORDS: dict[str, str] = {
    "logprob": "summed",
    "mean_logprob": "per token",
    "byte_logprob": "per byte",
    "char_logprob": "per character",
}
_NEEDS = {"logprob": "logprob", "mean_logprob": "n_tokens"}
LM_EVAL = {"logprob": "acc", "byte_logprob": "acc_bytes", "char_logprob": "acc_norm"}


def known_ways(table: "pd.DataFrame") -> list[By]:
    """The ways in which a table's scores can be compared."""
    return [by for by in WAYS if by in table or not _lacking(table, by)]


def compared(table: "pd.DataFrame", by: str) -> "pd.Series":
    """What rows of a table of scores are compared by.

    Bytes are those of UTF-8, characters are code points, as lm-evaluation-harness counts them; the
    space that a text may begin with, which scripts without spaces lack, is not counted.

    Args:
        table: With the column `by`, or else `logprob` and `n_tokens` or `text`.
        by: Of `WAYS`, or a column of your own.

    Raises:
        ValueError: the table has neither.
    """
    if by in table:
        return table[by]
    if lacking := [by] if by not in WAYS else _lacking(table, by):
        raise DataError(
            f"scores lacks the columns {lacking}; give what xlens.score returns, and by one of "
            f"{', '.join(WAYS)}."
        )
    if by == "mean_logprob":
        return table["logprob"] / table["n_tokens"]
    told = [str(text).strip() or str(text) for text in table["text"]]
    return table["logprob"] / [len(t.encode() if by == "byte_logprob" else t) for t in told]


def _lacking(table: "pd.DataFrame", by: str) -> list[str]:
    return sorted({"logprob", _NEEDS.get(by, "text")} - set(table.columns))
