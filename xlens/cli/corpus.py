"""`xlens count`: how often facts stand in a corpus."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def count(
    corpora: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    /,
    *,
    facts: Path,
    window: int | None = None,
    field: str = "text",
    cut: Literal["line", "blank line", "file"] = "line",
    workers: int | None = None,
    executor: str = "local",
    out: Path = Path("runs/count"),
) -> None:
    """Count the documents of a corpus that hold both subject and object of each fact.

    A stopped count goes on where it was. Needs the extra `corpus`.

    ```
    xlens count corpus/*.jsonl.gz --facts facts.tsv
    xlens count wiki.txt --facts facts.jsonl --cut 'blank line' --window 10 --out runs/wiki
    ```

    Args:
        corpora: Files, and folders of files: .txt, .jsonl, .parquet; .gz, .zst, .bz2, .xz.
        facts: Table of id, relation, language, subject and object: JSON Lines, TSV, CSV, Parquet.
        window: Also count documents in which at most so many words stand between the two.
        field: Of JSON Lines and Parquet: the one that holds the text.
        cut: What a document is in text files: a line, what stands between blank lines, or the file.
        workers: Processes; default as many as there are cores, at most one a file.
        executor: Where files are counted: local; ray (a cluster that RAY_ADDRESS names, else this
            machine) or ray://HOST:PORT, whose machines see the corpus.
        out: Folder for the counts (`xlens.results.load` reads `counts` in it) and how far they are.
    """
    from xlens.corpus import Reading, count_facts, read_facts
    from xlens.runs import check_writable

    reading = Reading(field=field, cut=cut)
    table = read_facts(facts)
    check_writable(out)
    found = count_facts(
        corpora, table, reading=reading, window=window, out=out, workers=workers, executor=executor
    )
    print(found)
    print(found.save(out / "counts"))
