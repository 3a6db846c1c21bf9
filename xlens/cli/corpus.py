"""`xlens count`: how often facts stand in a corpus, or in an index of one."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from xlens.errors import InputError


def count(
    corpora: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    /,
    *,
    facts: Path,
    index: str | None = None,
    window: int | None = None,
    field: str = "text",
    cut: Literal["line", "blank line", "file"] = "line",
    workers: int | None = None,
    executor: str = "local",
    max_diff_tokens: int = 1000,
    api_key_env: str | None = None,
    tries: int = 10,
    out: Path = Path("runs/count"),
) -> None:
    """Count the documents of a corpus that hold both subject and object of each fact.

    A stopped count goes on where it was. Files need the extra `corpus`.

    ```
    xlens count corpus/*.jsonl.gz --facts facts.tsv
    xlens count wiki.txt --facts facts.jsonl --cut 'blank line' --window 10 --out runs/wiki
    xlens count --index infini-gram:v4_dolma-v1_7_llama --facts facts.tsv
    xlens count --index elasticsearch:docs@http://localhost:9200 --facts facts.tsv
    ```

    Args:
        corpora: Files, and folders of files: .txt, .jsonl, .parquet; .gz, .zst, .bz2, .xz.
        facts: Table of id, relation, language, subject and object: JSON Lines, TSV, CSV, Parquet.
        index: An index that is asked in place of files, KIND:NAME@URL: infini-gram (co-occurrences,
            not documents; its public address needs no @URL) or elasticsearch (documents, as WIMBD).
        window: Also count documents in which at most so many words stand between the two.
        field: Of JSON Lines, Parquet and Elasticsearch: the one that holds the text.
        cut: What a document is in text files: a line, what stands between blank lines, or the file.
        workers: Processes; default as many as there are cores, at most one a file. Of an index:
            most questions under way, default 4.
        executor: Where files are counted: local; ray (a cluster that RAY_ADDRESS names, else this
            machine) or ray://HOST:PORT, whose machines see the corpus.
        max_diff_tokens: Of infini-gram: most tokens between the two.
        api_key_env: Of Elasticsearch: the environment variable that holds a key.
        tries: How often an index is asked a question before the count ends.
        out: Folder for the counts (`xlens.results.load` reads `counts` in it) and how far they are.
    """
    from xlens.corpus import (
        Bounds,
        Layout,
        count_facts,
        count_in_index,
        index_of,
        read_facts,
    )
    from xlens.runs import check_writable

    if bool(corpora) == (index is not None):
        raise InputError("Give the files of a corpus, or --index KIND:NAME@URL, one of the two.")
    if index is None:
        _refuse("of an index", max_diff_tokens=max_diff_tokens != 1000, api_key_env=api_key_env)
        layout = Layout(field=field, cut=cut)
        table = read_facts(facts)
        check_writable(out)
        found = count_facts(
            corpora,
            table,
            layout=layout,
            window=window,
            out=out,
            workers=workers,
            executor=executor,
        )
    else:
        _refuse(
            "of files", window=window is not None, cut=cut != "line", executor=executor != "local"
        )
        asked = index_of(
            index,
            field=field,
            max_diff_tokens=max_diff_tokens,
            api_key_env=api_key_env,
            bounds=Bounds(tries=tries),
        )
        table = read_facts(facts)
        check_writable(out)
        found = count_in_index(
            asked, table, kept=out / "answers.jsonl", concurrency=4 if workers is None else workers
        )
    print(found)
    print(found.save(out / "counts"))


def _refuse(of: str, **given: object) -> None:
    """Refuse options that would do nothing."""
    if wrong := [f"--{name.replace('_', '-')}" for name, there in given.items() if there]:
        raise InputError(f"{', '.join(wrong)}: {of} only; leave out.")
