"""Notebooks and experiments run as they stand, on a tiny model."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pytest
import readings
import yaml

import tiny

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/config.yaml"))
CONFIGS = sorted((ROOT / "experiments").glob("*/*.yaml"))
# What turns an experiment's size down, by its command.
SMALL = {
    "lens": ["--n-items", "3", "--n-controls", "2", "--controls"],
    "process": [
        *("--n-items", "6", "--languages", "en", "de", "fr", "sw", "--layers", "1"),
        *(
            "--steer-languages",
            "de",
            "--strengths",
            "1",
            "--n-estimate",
            "6",
            "--n-dev",
            "3",
            "--n-test",
            "3",
        ),
    ],
    "align": [
        *("--revision", "tiny-gpt2", "--languages", "en", "de", "fr", "--n-items", "8"),
        *("--n-inside", "8", "--n-pairs", "4", "--runs", "1", "--draws", "50"),
    ],
    "facts": ["--facts", "cldr", "--languages", "en", "de", "--n-items", "4", "--shots", "1"],
    "xmrc": [
        *("--data", "stories", "--questions", "en", "de", "--n-items", "4", "--n-controls", "2"),
        *("--shots", "0", "--max-new-tokens", "3", "--n-phases", "4", "--per-paragraph", "1"),
        *("--phase-languages", "en", "de", "--phase-layers", "1", "2"),
        *("--kinds", "readable", "patch_last_question", "--relevance-rule", "gradient"),
    ],
}
SMALL["subspace"] = ["--sentences", "sentences", "--n-items", "6", "--layers", "1"]
SMALL["subspace"] += ["--twins", "words", "--n-twins", "1", "--draws", "50"]
PARTS = ["Found", "How certain", "Command"]
PLOTLY = "application/vnd.plotly.v1+json"

named = {"ids": lambda path: path.stem if path.suffix == ".py" else path.parent.name}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    # Few-shot prompts fall apart into bytes here, so the context is longer than usual.
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    return tiny.make("gpt2", folder, n_positions=512)


def test_there_are_some():
    assert NOTEBOOKS and EXPERIMENTS
    pairs = {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert pairs == {p.stem for p in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_both_halves_of_a_pair_say_the_same(path):
    """If not: `make notebooks`, after the .py half."""
    text = jupytext.read(path)
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    cells = [[(c.cell_type, c.source) for c in half.cells] for half in (text, notebook)]
    assert cells[0] == cells[1]
    assert text.metadata["jupytext"]["formats"] == "ipynb,py:percent"
    assert notebook.metadata["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_the_first_cell_installs_what_is_missing(path):
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first = next(c for c in jupytext.read(path).cells if c.cell_type == "code")
    (name, extras) = re.findall(r"install --quiet ([\w-]+)\[([\w,]+)\]", first.source)[0]
    assert 'find_spec("xlens") is None' in first.source and name == told["name"]
    assert set(extras.split(",")) <= set(told["optional-dependencies"])


@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_a_notebook_names_no_machine(path):
    text = path.with_suffix(".ipynb").read_text(encoding="utf-8")
    for private in (str(ROOT), "/home/", "/root/", "/tmp/", "site-packages", '"stderr"'):
        assert private not in text


@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_outputs_are_of_these_cells_and_of_the_prompts_of_today(path, monkeypatch):
    """If not: `make notebooks` runs them anew; then read whether the text still says so."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    import outputs

    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert notebook.metadata.get("xlens") == outputs.about(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize(
    "path",
    [NOTEBOOKS[0], *(pytest.param(path, marks=pytest.mark.slow) for path in NOTEBOOKS[1:])],
    **named,
)
def test_a_notebook_runs_on_a_tiny_model(path, model, tmp_path):
    # In a process of its own: the kernel's sockets and event loop stay out of ours.
    script = (
        "import sys, nbformat\n"
        "from nbclient import NotebookClient\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "where = {'metadata': {'path': sys.argv[3]}}\n"
        "client = NotebookClient(notebook, timeout=250, kernel_name='python3', resources=where)\n"
        "client.execute()\n"
        "nbformat.write(notebook, sys.argv[2])\n"
    )
    source, ran = path.with_suffix(".ipynb"), tmp_path / "ran.ipynb"
    environment = os.environ | {
        "XLENS_NOTEBOOK_MODEL": str(model),
        "XLENS_NOTEBOOK_ITEMS": "4",
        "XLENS_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(ran), str(ROOT)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.read(ran, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    drawn = [o.data[PLOTLY] for o in outputs if PLOTLY in o.get("data", {})]
    shown = [cell for cell in code if cell.source.splitlines()[-1].startswith("figures.")]
    assert len(drawn) == len(shown) >= 1
    assert all(figure["data"] and figure["layout"]["title"]["text"] for figure in drawn)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow) for path in EXPERIMENTS],
    **named,
)
def test_an_experiment_runs_small(path, model, tmp_path):
    """Its own script and config, all options of which must exist, with the size turned down."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    ((command, options),) = config.items()
    assert options["out"].startswith("runs/")  # which git ignores
    # Of a series: the folder that holds the checkpoint, here the only one.
    where = model.parent if "revision" in options else model
    small = ["--model", str(where), "--out", "small", *SMALL[command]]
    (tmp_path / "stories").mkdir()
    for tag in ("en", "de"):
        story = tmp_path / "stories" / f"stories.{tag}.json"
        story.write_text(json.dumps(readings.squad(tag)), encoding="utf-8")
    for code, word in (("eng_Latn", "house"), ("deu_Latn", "Haus"), ("rus_Cyrl", "дом")):
        rows = "".join(f"{n}\ttravel\t{word} {word} {n}\n" for n in range(8))
        file = tmp_path / "sentences" / code / "train.tsv"
        file.parent.mkdir(parents=True)
        file.write_text(f"index_id\tcategory\ttext\n{rows}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path.with_name("run.py")), *small],
        cwd=tmp_path,
        env=os.environ | {"XLENS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = yaml.safe_load((tmp_path / "small" / "config.yaml").read_text(encoding="utf-8"))
    turned_down = {o[2:].replace("-", "_") for o in small if o.startswith("--")}
    for name, value in options.items():
        assert name in turned_down or written[command][name] == value
    assert (tmp_path / "small" / "report.html").is_file()
    as_the_readme_has_it(tmp_path / "small", path.parent)
    (results,) = (p for p in (tmp_path / "small" / "results").iterdir() if p.name != "all-models")
    sets = {pair.replace(":", "_") for pair in options.get("pairs", [])}
    assert sets <= {part.name for part in results.iterdir()}


@pytest.mark.parametrize("pair", ["fr:zh-Hans"])
def test_tables_come_from_the_run_in_the_form_of_the_readme(pair, model, tmp_path, monkeypatch):
    from xlens.cli import main

    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as end:
        main(
            f"lens {model} --pairs {pair} --n-items 8 --draws 50 "
            f"--controls shuffled --out {tmp_path / 'run'}".split()
        )
    assert not end.value.code
    printed = as_the_readme_has_it(tmp_path / "run", ROOT / "experiments" / "latent_language")
    (row,) = printed.splitlines()[2:]
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[0] == "fr → zh-Hans" and re.fullmatch(
        r"zh-Hans [\d.]+ \[.*\], en [\d.]+", cells[4]
    )
    assert all(re.fullmatch(r"\.\d\d( \[.+\])? at \d+( \[.+\])?", c) for c in cells[1:3])
    kept = tmp_path / "experiments" / "mine" / "results" / "fr.json"
    page = kept.parent.parent / "README.md"
    kept.parent.mkdir(parents=True)
    for script in (ROOT / "experiments").glob("*.py"):
        shutil.copy(script, tmp_path / "experiments")
    page.write_text("<!-- begin table: lens of fr -->\n<!-- end table -->\n", encoding="utf-8")
    of_tables(tmp_path / "run", "--keep", kept)
    of_tables(script=tmp_path / "experiments" / "tables.py")
    assert printed in page.read_text(encoding="utf-8")


def of_tables(*asked, script=ROOT / "experiments" / "tables.py"):
    done = subprocess.run(
        [sys.executable, str(script), *map(str, asked)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def as_the_readme_has_it(run: Path, experiment: Path) -> str:
    """What `experiments/tables.py` prints of a run; its heads and first cells are the README's."""
    printed = of_tables(run)
    said = (experiment / "README.md").read_text(encoding="utf-8")
    tables = [table.splitlines() for table in printed.split("\n\n")]
    assert tables and all(len(table) > 2 for table in tables)
    for head, _, *rows in tables:
        if head.startswith("|  |"):  # languages' columns: the rows have the words
            assert all(f"\n| {row.split('|')[1].strip()} |" in said for row in rows), rows
        else:
            asked = re.sub(r"layer\\ \d+", r"layer \\d+", re.escape(head))
            assert re.search(asked, said), head
    return printed


@pytest.mark.parametrize("path", EXPERIMENTS, **named)
def test_a_readme_says_first_what_was_found(path):
    said = path.with_name("README.md").read_text(encoding="utf-8").split("\n\n")[1]
    assert len(said.splitlines()) <= 10
    assert [part for part in re.findall(r"\*\*(.+?)\.\*\*", said)] == PARTS
    out = yaml.safe_load(path.read_text(encoding="utf-8")).popitem()[1]["out"]
    assert f"experiments/tables.py {out}`" in " ".join(said.split())


@pytest.mark.parametrize("path", CONFIGS, **named)
def test_a_configuration_names_options_that_there_are(path):
    from xlens.cli import app

    ((command, options),) = yaml.safe_load(path.read_text(encoding="utf-8")).items()
    known = {name for a in app[command].assemble_argument_collection() for name in a.names}
    assert {"--" + name.replace("_", "-") for name in options} <= known
