"""A Ray cluster: how it is named, and the connection to it."""

import logging
import os
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from xlens.errors import InputError

INSTALL = "pip install 'xlens-interp[ray]'"
REACH_SECONDS = 10.0
_NAME = re.compile(r"ray(?P<address>://[^?/]+:[0-9]+)?(\?(?P<options>.+))?")
_connected: dict[str, str | None] = {}  # "to" what this process was connected here


def named(text: str, kinds: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Read `ray`, `ray://HOST:PORT`, each also with options: `ray?cpus=2&workers=4`.

    Args:
        text: What is read.
        kinds: How the value of each option that there is is read.

    Returns:
        The address, None for whatever `RAY_ADDRESS` names; and the options.

    Raises:
        ValueError: anything else.
    """
    wrong = InputError(
        f"Unknown executor {text!r}; accepted are 'local', 'ray' and 'ray://HOST:PORT', the "
        f"latter two also with ?{'&'.join(f'{name}={_SHOWN[kinds[name]]}' for name in kinds)}."
    )
    found = _NAME.fullmatch(text)
    if found is None:
        raise wrong
    try:
        given = parse_qsl(found["options"] or "", strict_parsing=bool(found["options"]))
        options = {name: kinds[name](value) for name, value in given}
    except (KeyError, ValueError) as error:
        raise wrong from error
    return found["address"] and f"ray{found['address']}", options


def truth(text: str) -> bool:
    """Whether a text says yes.

    Raises:
        KeyError: it says neither.
    """
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text]


_SHOWN = {int: "N", float: "N", truth: "yes"}


def connect(address: str | None) -> Any:
    """Ray, connected to a cluster.

    Raises:
        ValueError: it is not installed, nothing answers, or another cluster is connected.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"executor='ray' needs Ray, which is not installed: {INSTALL}, here and on every "
            "machine of the cluster."
        ) from error
    named = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        if address is not None and address != _connected.get("to"):
            raise InputError(
                f"This process is connected to a Ray cluster already "
                f"({_connected.get('to') or 'this machine, or by a ray.init(...) of yours'}), and "
                f"can't ask {address} as well: call ray.shutdown() first, or leave the address out."
            )
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if named is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            _require_answer(named)
            ray.init(address=named, **quiet)
    except ImportError as error:  # its client is a part that is installed by name
        raise InputError(f"Ray is not installed whole ({error}): {INSTALL}.") from error
    except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise InputError(
            f"No Ray cluster can be reached at {named or 'this machine'} ({error}). Start one "
            "(`ray start --head` there; its client server listens on port 10001), mend the "
            "address, or leave it out for this machine alone. A cluster that asks for a token "
            "(the user's ~/.ray has one after a first `ray`) needs RAY_AUTH_MODE=token here too."
        ) from error
    _connected["to"] = named
    return ray


def _require_answer(address: str) -> None:
    """Fail within seconds where Ray would try for minutes."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), REACH_SECONDS).close()
