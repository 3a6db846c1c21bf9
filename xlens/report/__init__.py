"""The report of a run: one page that opens from disk, with the controls beside the results."""

from xlens._lazy import listed
from xlens.report.build import page_of, write_report
from xlens.report.sentences import pair_sentences, verdict

__all__ = ["page_of", "pair_sentences", "verdict", "write_report"]
__dir__ = listed(__all__)
