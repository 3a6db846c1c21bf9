"""Runs a study for the command line: tells what happens, writes the page, prints where it is."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlens.cli.shown import show
from xlens.figures.export import check_static
from xlens.precision import PrecisionResult
from xlens.report import page_of, write_report
from xlens.report.build import Page
from xlens.report.lens import left_out
from xlens.report.rounding import fp32_sentence
from xlens.results import Result
from xlens.store import Store
from xlens.studies import Loading, Plan, Serving, Study, Watch, forecast, run
from xlens.studies.running.fp32_sample import FP32_SAMPLE
from xlens.studies.work import Work, lasting


class _Telling(Watch):
    """Prints as a run goes on."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def described(self, known: Mapping[str, Any]) -> None:
        _print(self.page.offered(known))

    def model(self, name: str, number: int, of: int) -> None:
        _print([f"[{number}/{of}] {name}"])

    def planned(self, plan: Callable[[], Plan]) -> None:
        if (left := plan()).parts and left.work:
            _print([f"      {left}"])

    def group(self, name: str, number: int, of: int) -> None:
        _print([f"[{number}/{of}] {name.replace('_', ' → ')}"])

    def without(self, name: str, why: str) -> None:
        _print([left_out(name, why)])

    def model_done(self, folder: str, parts: Mapping[str, Result]) -> None:
        show(self.page.model(folder, parts))
        if isinstance(part := parts.get(FP32_SAMPLE), PrecisionResult):
            _print(["", fp32_sentence(part, folder)])


def study_job(
    *,
    model: Sequence[str],
    study: Study,
    loading: Loading,
    out: Path | None,
    overwrite: bool,
    dry_run: bool = False,
    static: Collection[str] = (),
    serving: Serving | None = None,
) -> None:
    """Run the study, write the report and print where it is; or say what that would take.

    Raises:
        ValueError: what `xlens.run` refuses, or pictures of an unknown kind.
    """
    check_static(static)
    if dry_run:
        plans = forecast(study, list(model), loading=loading, serving=serving)
        _print(line for name, plan in plans.items() for line in planned_lines(name, plan))
        if len(plans) > 1:
            _print([f"together: {together(plans.values())}"])
        return
    page = page_of(study.COMMAND)
    done = run(
        study,
        list(model),
        out=out or Path("runs") / study.title([*model] or [Path(str(loading.series)).stem]),
        overwrite=overwrite,
        loading=loading,
        serving=serving,
        store=Store(),
        watch=_Telling(page),
    )
    assert done.folder is not None
    show(page.across(done.across, done.models))
    if short := page.leads(done.across, done.models):
        _print(["", "In short:", *short])
    written = write_report(done.folder, static=static)
    print(f"\nReport: {written.resolve()}")


def together(plans: Iterable[Plan]) -> str:
    """What several models take, one after the other."""
    every = list(plans)
    total = sum((plan.total for plan in every), Work())
    times = [plan.seconds for plan in every]
    sizes = [plan.fetched for plan in every]
    said = [f"{len(every)} models", str(total)]
    if any(size != 0 for size in sizes):
        known = [size for size in sizes if size is not None]
        more = "" if len(known) == len(sizes) else " or more"
        most = max(known, default=0) / 1e9
        said.append(f"{sum(known) / 1e9:.1f} GB{more} to fetch, {most:.1f} GB the largest")
    whole = sum(time for time in times if time is not None)
    return f"{', '.join(said)}{f': about {lasting(whole)}' if all(times) else ''}"


def planned_lines(name: str, plan: Plan) -> Iterator[str]:
    """What a model would be asked, part by part."""
    yield f"{name}: {plan}"
    for part in plan.parts:
        found = (plan.work or {}).get(part)
        # Where there is none it only reads other parts.
        yield f"  {part}" if found is None else f"  {part}: {found}"


def _print(lines: Any) -> None:
    for line in lines:
        print(line, flush=True)
