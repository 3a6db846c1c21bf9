"""What a page and the terminal say of a sample in fp32: what the run's dtype changes."""

from collections.abc import Mapping

from xlens.precision import PrecisionResult
from xlens.report.blocks import Block, Folded, Paragraph, Section, Table
from xlens.report.cells import rounded
from xlens.results import HEADER, Result, load
from xlens.runs import RunDirectory
from xlens.studies.running.fp32_sample import FP32_SAMPLE
from xlens.wording import number_of


def sampled(run: RunDirectory) -> list[Section]:
    """What was found of each model of a run; nothing where it wasn't asked.

    Args:
        run: Of any study.

    Raises:
        DamagedError: a part is not what was written. A `ValueError` too.
    """
    places = {model: run.result_folder(model, FP32_SAMPLE) for model in run.models}
    there = {model: load(at) for model, at in places.items() if (at / HEADER).is_file()}
    return fp32_sections(there)


def fp32_sections(models: Mapping[str, Result]) -> list[Section]:
    """The sentence of each model, and its layers folded below.

    Args:
        models: The part of each, by what it is called.
    """
    found = {name: part for name, part in models.items() if isinstance(part, PrecisionResult)}
    blocks: list[Block] = []
    for name, part in found.items():
        of = f": {name}" if len(found) > 1 else ""
        blocks += [
            Paragraph(fp32_sentence(part, name), "said"),
            Folded(f"By layer{of}", (_layers(part),)),
        ]
    title = "What the dtype changes of fp32"
    return [Section(FP32_SAMPLE, title, tuple(blocks))] if blocks else []


def fp32_sentence(part: PrecisionResult, name: str = "") -> str:
    """What differs, in a line.

    Args:
        part: Of a model.
        name: What it is called here; empty: as the part says.
    """
    n = len(part.table)
    called, prompts = name or part.provenance["model"], number_of(n, "prompt")
    asked = f"{called} in {part.dtype} beside fp32, on {prompts} of the run"
    if part.dtype == "float32":
        return f"{asked}: the run is in fp32 itself."
    layer, most = part.worst
    return (
        f"{asked}: the most probable next token is the same in {part.same_top} of {n}; the "
        f"log-probability of the one in fp32 is off by {_n(part.median_off)} nats (median), "
        f"{_n(part.most_off)} at most; states at the last token by {_n(100 * part.median_error)} % "
        f"of their norm (median), {_n(100 * most)} % at most (layer {layer})."
    )


def _layers(part: PrecisionResult) -> Table:
    caption = (
        "Norm of the difference between a prompt's states in both, at its last token, of the norm "
        "in fp32."
    )
    rows = [
        [str(int(layer)), f"{_n(100 * median)} %", f"{_n(100 * most)} %"]
        for layer, median, most in part.layers.to_numpy().tolist()
    ]
    return Table(caption, ["Layer", "Median", "Most"], rows)


def _n(value: float) -> str:
    return rounded(float(value), ".2g")
