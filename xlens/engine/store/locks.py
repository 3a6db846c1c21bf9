"""Claims on shards, which die with the process that made them.

A claim only divides the work. Should two processes ever compute the same shard, both write the
same bytes and nothing is lost; so a claim may be taken over whenever its owner seems dead.
"""

import json
import os
import platform
import time
from pathlib import Path

from xlens.files import Owner, me, now


def claim(path: Path) -> bool:
    """Take the claim file `path` unless another live process has it. Needs the store's lock."""
    if holder(path) not in (None, me()):
        return False
    text = json.dumps({"owner": str(me()), "host": platform.node(), "since": now()})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        os.write(descriptor, text.encode())
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return True


def holder(path: Path) -> Owner | None:
    """The live process that has the claim file; None if there is none or it died."""
    try:
        idle = time.time() - path.stat().st_mtime
        owner = Owner.parse(str(json.loads(path.read_bytes())["owner"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # no claim, or one whose writer died in the middle
    return owner if owner is not None and owner.alive(idle) else None
