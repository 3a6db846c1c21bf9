"""What importing costs, and that every public name is there."""

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xlens

ROOT = Path(__file__).parent.parent
HEAVY = (
    *("torch", "transformers", "transformer_lens", "pandas", "plotly", "sklearn"),
    "statsmodels",
)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "code",
    [
        "import xlens",
        "from xlens.cli import main\nmain([])",
        "from xlens.cli import main\nmain(['--help'])",
        "from xlens.cli import main\nmain(['lens', '--help'])",
        "from xlens.cli import main\nmain(['--version'])",
        "from xlens.cli import main\nmain(['store', 'ls', '--root', 'tests'])",
    ],
)
def test_nothing_heavy_until_it_is_needed(code):
    body = "\n    ".join(code.splitlines())
    done = run_python(
        f"import json, sys\ntry:\n    {body}\nexcept SystemExit:\n    pass\n"
        "print('\\n' + json.dumps([m for m in sys.argv[1:] if m in sys.modules]))",
        *HEAVY,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_every_public_name_resolves():
    assert len(set(xlens.__all__)) == len(xlens.__all__)
    for name in xlens.__all__:
        assert getattr(xlens, name) is not None
    assert set(xlens.__all__) - {"__version__"} <= set(dir(xlens))


@pytest.mark.parametrize(
    "room",
    [
        *("activations", "engine", "figures", "languages", "lens", "models", "prompts", "report"),
        *("results", "runs", "stats", "store", "studies", "tasks", "tasks.words", "testbed"),
        *(
            "consistency",
            "corpus",
            "phases",
            "served",
            "steering",
            "subspace",
            "tasks.choices",
            "tasks.xmrc",
        ),
        *("acquisition", "gain", "neurons", "precision", "training", "tasks.running_text"),
    ],
)
def test_every_name_of_a_room_resolves(room):
    module = importlib.import_module(f"xlens.{room}")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'xlens' has no attribute 'nosuch'"):
        _ = xlens.nosuch  # type: ignore[attr-defined]


def test_python_dash_m_xlens_says_its_version():
    command = [sys.executable, "-m", "xlens", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, xlens.__version__, "")


def test_the_command_is_declared():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"xlens": "xlens.cli:main"}


def test_checkers_see_what_there_is():
    """`TYPE_CHECKING` in `xlens/__init__.py` names what `_PUBLIC` does."""
    for package in ("xlens", "xlens.tasks", "xlens.studies", "xlens.training", "xlens.testbed"):
        module = importlib.import_module(package)
        source = Path(module.__file__).read_text(encoding="utf-8")
        seen = set(re.findall(r"^ +from [\w.]+ import (\w+) as \1$", source, flags=re.MULTILINE))
        own = set(re.findall(r"^from [\w.]+ import (\w+)$", source, flags=re.MULTILINE))
        assert set(module.__all__) - {"__version__", "find_studies"} <= seen | own, package


def test_dir_shows_what_is_public():
    assert len([name for name in dir(xlens) if callable(getattr(xlens, name))]) < 25
    for room in (name for name in dir(xlens) if name in xlens._PUBLIC and not xlens._PUBLIC[name]):
        module = importlib.import_module(f"xlens.{room}")
        assert set(dir(module)) == set(module.__all__), room


def test_no_module_is_where_a_verb_is_looked_for():
    verbs = {name for name in xlens._PUBLIC if xlens._PUBLIC[name]} - {"answers"}
    for room in ("engine", "figures", "lens", "served", "subspace", "steering", "phases"):
        module = importlib.import_module(f"xlens.{room}")
        names = {info.name for info in pkgutil.iter_modules(module.__path__)}
        assert not {n for n in names & verbs if inspect.ismodule(getattr(module, n, None))}, room
    drawn = {info.name for info in pkgutil.iter_modules(xlens.figures.__path__)}
    assert not drawn & {"consistency", "dissociation", "trace", "transfer", "compare"}


def test_an_old_name_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"xlens\.Scores is xlens\.engine\.Scores from now"):
        old = xlens.Scores
    from xlens.engine import Scores

    assert old is Scores and "Scores" not in dir(xlens)


@pytest.mark.slow
def test_nothing_needs_transformer_lens():
    """It is for `.bridge` and published lenses; analyses of xlens's own run without it."""
    done = run_python(
        "import sys\nsys.path.insert(0, 'tests')\nsys.modules['transformer_lens'] = None\n"
        "import kit, xlens\nmodel = kit.fresh('gpt2')\nquiet = {'progress': False}\n"
        "states = xlens.harvest(model, ['a dog', 'the house'], **quiet)\n"
        "xlens.logit_lens(states, model, **quiet)\nxlens.trace(model, 'a dog').plot()\n"
        "xlens.score(model, 'a dog', [' a', ' b'], **quiet)\n"
        "xlens.generate(model, 'a dog', max_new_tokens=2, **quiet)\n"
        "xlens.relevance(model, 'a dog', targets=[3], **quiet)\n"
        "for room in ('subspace', 'phases', 'steering', 'consistency', 'studies', 'report'):\n"
        "    getattr(xlens, room)\n"
        "try:\n    model.bridge\nexcept ImportError:\n    print('only the bridge')\n"
    )
    assert done.stdout.strip().endswith("only the bridge"), done.stderr
