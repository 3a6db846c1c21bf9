"""A chat template tried before it is believed: in a process of its own, which can be ended.

A template is a program that comes with a checkpoint. Jinja's sandbox keeps it from the machine, but
not from running for ever, nor from filling the memory.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from xlens.errors import InputError

SECONDS, ROOM, LONGEST = 3, 1 << 30, 10_000_000
"""What writing a chat may take: seconds, bytes of memory, characters of text."""

_NO_ROOM, _NO_END = 3, 4
_CHILD = """
import json, os, signal, sys, threading
from transformers.utils.chat_template_utils import render_jinja_template
(seconds, room, longest), template, turns, values = json.load(sys.stdin)
if hasattr(signal, "setitimer"):
    # The system ends the process: no step of the template can put that off. Its own seconds: on a
    # busy machine any template takes long.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    import resource, psutil
    most = psutil.Process().memory_info().vms + room
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
else:
    watch = threading.Timer(10 * seconds, os._exit, [4])
    watch.daemon = True
    watch.start()
try:
    (text,), _ = render_jinja_template([turns], chat_template=template, **values)
except (MemoryError, OverflowError):
    sys.exit(3)
except Exception:
    text = ""  # it is told where the template is used
sys.exit(3 if len(text) > longest else 0)
"""
# By template and number of turns, which is all that most of them see of a chat.
_found: dict[tuple[str, int], str] = {}


def require_end(
    template: str, turns: Sequence[Mapping[str, str]], values: Mapping[str, Any]
) -> None:
    """Let a template write a chat once; later chats of as many turns are taken on trust.

    Args:
        template: In Jinja's language.
        turns: The messages.
        values: What else it may read.

    Raises:
        ValueError: it does not come to an end, or writes without measure.
    """
    key = template, len(turns)
    if key not in _found:
        _found[key] = _fault([(SECONDS, ROOM, LONGEST), template, turns, values])
    if _found[key]:
        raise InputError(_found[key])


def _fault(asked: Any) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=json.dumps(asked).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS + 100,  # with its start, on a busy machine
            check=False,
        )
        code = done.returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code < 0 or code == _NO_END:
        return f"The chat template does not come to an end within {SECONDS} s."
    if code == _NO_ROOM:
        return (
            f"The chat template writes more than {LONGEST:,} characters, or needs more than "
            f"{ROOM / 1e9:.0f} GB, for one chat."
        )
    return ""
