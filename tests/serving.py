"""A tiny model behind a real server, `transformers serve`."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tiny

_NEEDED = ("openai", "fastapi", "uvicorn")
needed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in _NEEDED),
    reason=f"`transformers serve` needs {', '.join(_NEEDED)}: make install",
)
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_STARTED = re.compile(r"running on (http://\S+)")


def make(path: Path) -> Path:
    """A checkpoint with a chat template."""
    # With tied embeddings a random model repeats its last token for ever.
    tiny.make("gpt2", path, tie_word_embeddings=False, n_positions=256)
    words = tiny.tokenizer("gpt2")
    words.chat_template = TEMPLATE
    words.save_pretrained(path)
    return path


@contextmanager
def serve(folder: Path, log: Path) -> Iterator[str]:
    """The address of a server of this model, on a free port of its own choosing."""
    program = "from transformers.cli.transformers import main; main()"
    options = ["--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    command = [sys.executable, "-c", program, "serve", str(folder), *options]
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while not (found := _STARTED.search(log.read_text(encoding="utf-8", errors="replace"))):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start: {log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.1)
        yield f"{found[1]}/v1"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
