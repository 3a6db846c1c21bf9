"""The whole training in one call: corpus, base model, twin; and what of it the package ships."""

import json
import platform
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from xlens import files
from xlens.errors import InputError
from xlens.models.checked import check_shipped
from xlens.results import Result, versions
from xlens.testbed.atlas.corpus import base_corpus, twin_corpus, without_pivot
from xlens.testbed.atlas.manifest import Design, Manifest, make_manifest, withheld
from xlens.testbed.atlas.tokenizer import build_tokenizer, save_tokenizer
from xlens.testbed.atlas.train import STATE, Options, encode, export, fit, new_model
from xlens.testbed.atlas.world import World, make_world

DATA = Path(__file__).parent / "data"
LICENCE = "MIT"
PHASES = ("base", "post")
# Which checkpoints of the series are in the package; the others are made by training.
SHIPPED_STEPS = (512, 1024, 2048)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    Attributes:
        design: Of the corpus.
        base: Shape and training of the base model.
        twin_rate: Highest learning rate of the twin, which starts from the base model.
        withheld: Leave out the documents in which the pivot states a transfer fact, and make no
            twin: the counterfactual of what is carried over from the pivot.
    """

    design: Design = field(default_factory=lambda: Design(scale=1.3))
    base: Options = field(default_factory=Options)
    twin_rate: float = 1.5e-3
    withheld: bool = False

    @property
    def twin(self) -> Options:
        """How the twin is trained."""
        return replace(self.base, learning_rate=self.twin_rate)

    @property
    def phases(self) -> tuple[str, ...]:
        """What is trained, in order."""
        return PHASES[:1] if self.withheld else PHASES


@dataclass(frozen=True, kw_only=True)
class TrainingCurves(Result):
    """How the loss fell.

    Attributes:
        table: One row per step: `phase` (`base` or `post`), and the columns of `loss.csv`: `step
            tokens loss learning_rate seconds`; the loss in nats a token.
    """

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


def train_atlas(
    out: Path, recipe: Recipe | None = None, *, progress: bool = True
) -> TrainingCurves:
    """Make corpus, base model, its checkpoints and the twin, or go on where a run was stopped.

    Args:
        out: Gets `corpus/`, `base/step*/`, `base/final/`, `post/final/`, `recipe.json`; every
            checkpoint is a folder that `xlens.load` takes.
        recipe: Default: that of the shipped weights.
        progress: Show bars.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    recipe = recipe or Recipe()
    files.make(out)
    _require_same(out, recipe)
    here = make_world()
    manifest = make_manifest(here, recipe.design)
    tokenizer = build_tokenizer(here)
    save_manifest(withheld(manifest) if recipe.withheld else manifest, out / "corpus")
    model = new_model(recipe.base, tokenizer)
    options_of = {"base": recipe.base, "post": recipe.twin}
    for name in recipe.phases:
        folder = out / name
        if (folder / "final").is_dir():
            _reload(model, folder / "weights.safetensors")
            continue
        corpus = base_corpus(here, manifest) if name == "base" else twin_corpus(here, manifest)
        corpus = without_pivot(corpus, manifest) if recipe.withheld else corpus
        files.write(out / "corpus" / f"{name}.parquet", corpus.to_parquet(index=False))
        options = options_of[name]
        packed = encode(corpus, tokenizer, options)
        fit(
            model,
            packed,
            options,
            folder,
            revisions=name == "base",
            tokenizer=tokenizer,
            progress=progress,
        )
        _save_whole(model, folder / "weights.safetensors")
        export(model, folder / "final")
        (folder / STATE).unlink()
        save_tokenizer(tokenizer, folder / "final")
    return trained_curves(out)


def shipped_curves() -> TrainingCurves:
    """How the loss of the shipped weights fell."""
    known = json.loads((DATA / "index.json").read_text(encoding="utf-8"))
    for name in PHASES:
        check_shipped(DATA, f"loss-{name}.csv")
    return _curves(known, {name: DATA / f"loss-{name}.csv" for name in PHASES})


def trained_curves(out: Path) -> TrainingCurves:
    """How the loss of a run in the folder `out` fell."""
    known = json.loads((out / "recipe.json").read_text(encoding="utf-8"))
    phases = PHASES[:1] if known["recipe"]["withheld"] else PHASES
    return _curves(known, {name: out / name / "loss.csv" for name in phases})


def _curves(known: dict[str, Any], paths: dict[str, Path]) -> TrainingCurves:
    tables = [pd.read_csv(path).assign(phase=name) for name, path in paths.items()]
    kept = {key: known[key] for key in ("recipe", "made_with")}
    return TrainingCurves(provenance=kept, table=pd.concat(tables))


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `facts.parquet`, `pairs.parquet`, `chains.parquet`, `reading_subjects.parquet`."""
    files.make(folder)
    for name in ("facts", "pairs", "chains", "reading_subjects"):
        table: pd.DataFrame = getattr(manifest, name)
        content = table.to_parquet(index=False, compression="zstd")
        files.write(folder / f"{name}.parquet", content)
    files.write(folder / "design.json", json.dumps(asdict(manifest.design), indent=1) + "\n")


def shipped_manifest() -> tuple[World, Manifest]:
    """World and ground truth of the shipped weights, made again from their recipe.

    Raises:
        ValueError: the installed CLDR gives other facts than those that the weights read.
    """
    here = make_world()
    manifest = make_manifest(here, Recipe().design)
    check_shipped(DATA, "facts.parquet")
    facts = pd.read_parquet(DATA / "facts.parquet")
    if not facts.astype(str).equals(manifest.facts.astype(str)):
        known = json.loads((DATA / "index.json").read_text(encoding="utf-8"))["world"]
        raise InputError(
            f"The atlas was trained on {known}; the installed one is {here.source} and gives other "
            "names, facts or counts. Install that release of babel and language_data 1.4 or newer, "
            "or train again with `python -m xlens.testbed.atlas train --out FOLDER`."
        )
    return here, manifest


def trained_manifest(out: Path) -> tuple[World, Manifest]:
    """World and ground truth of a run in the folder `out`."""
    recipe = json.loads((out / "recipe.json").read_text(encoding="utf-8"))["recipe"]
    listed = {k: _tuples(v) for k, v in recipe["design"].items()}
    here = make_world()
    manifest = make_manifest(here, Design(**listed))
    return here, withheld(manifest) if recipe["withheld"] else manifest


def ship(out: Path, data: Path = DATA) -> None:
    """Copy a finished run's models, the chosen checkpoints and the ground truth into the package.

    Raises:
        ValueError: the run is not finished, or the counterfactual, which has no twin.
    """
    if not (out / "post" / "final").is_dir():
        raise InputError(
            f"{str(out)!r} holds no finished run: no post/final. Run train first "
            "(without --withheld: the counterfactual has no twin and is not shipped)."
        )
    shutil.rmtree(data, ignore_errors=True)  # the report too: it is about other weights
    data.mkdir(parents=True)
    made = sorted((out / "base").glob("step*"), key=lambda p: int(p.name.removeprefix("step")))
    last = len(pd.read_csv(out / "base" / "loss.csv"))
    steps = [f"step{step}" for step in SHIPPED_STEPS if (out / "base" / f"step{step}").is_dir()]
    folders = {"final": out / "base" / "final", "post": out / "post" / "final"}
    folders |= {step: out / "base" / step for step in steps}
    for name, folder in folders.items():
        shutil.copytree(folder, data / name)
    shutil.copy(out / "corpus" / "facts.parquet", data / "facts.parquet")
    for name in PHASES:
        shutil.copy(out / name / "loss.csv", data / f"loss-{name}.csv")
    recipe = json.loads((out / "recipe.json").read_text(encoding="utf-8"))
    index = {
        "models": {
            "atlas": {"final": "final", f"step{last}": "final", **{step: step for step in steps}},
            "atlas-post": {"final": "post"},
        },
        "series": "base",
        "made": [folder.name for folder in made],
        "licence": LICENCE,
        "world": make_world().source,
        "recipe": recipe["recipe"],
        "made_with": recipe["made_with"],
    }
    write_index(data, index)


def write_index(data: Path, index: dict[str, Any]) -> None:
    """Write what the package holds, with size and SHA-256 of each checkpoint's files."""
    digests = {
        str(path.relative_to(data)): {"size": path.stat().st_size, "sha256": files.digest(path)}
        for path in sorted([*data.glob("*/*"), *data.glob("*.*")])
        if path.name != "index.json" and path.parent.name != "report"  # has its own
    }
    # In their order: a model's first revision is its default.
    sealed = files.sealed_json({**index, "digests": digests}, sort=False)
    files.write(data / "index.json", sealed + "\n")


def _require_same(out: Path, recipe: Recipe) -> None:
    path = out / "recipe.json"
    wanted = json.loads(json.dumps(asdict(recipe)))
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))["recipe"]
        if found != wanted:
            raise InputError(
                f"{str(out)!r} holds a run with another recipe (see recipe.json there). Choose "
                "another folder, or remove that one."
            )
        return
    made_with = {**versions(), "machine": platform.machine(), "device": "cpu"}
    files.write(path, json.dumps({"recipe": wanted, "made_with": made_with}, indent=1) + "\n")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _save_whole(model: Any, path: Path) -> None:
    """The weights in float32: what the twin goes on from."""
    from safetensors.torch import save_model

    draft = files.unique(path)
    with files.told(path, "a model"):
        try:
            save_model(model, str(draft))
            files.sync(draft)
            files.publish({path: draft})
        finally:
            files.remove(draft)


def _reload(model: Any, path: Path) -> None:
    from safetensors.torch import load_model

    load_model(model, str(path))
