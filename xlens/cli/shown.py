"""What a report says, in the terminal: its sentences and main tables."""

from collections.abc import Iterable

from xlens.report.blocks import Findings, Paragraph, Section, Table
from xlens.terminal import show_table


def show(sections: Iterable[Section]) -> None:
    """Print sections."""
    for section in sections:
        print(f"\n{section.title}\n", flush=True)
        for block in section.blocks:
            if isinstance(block, Findings):
                print("\n".join(finding.plain for finding in block.items))
            elif isinstance(block, Paragraph):
                print(block.text)
            elif isinstance(block, Table):
                print(f"\n{block.caption}\n")
                show_table(block.head, block.rows, numbers=block.numbers)
