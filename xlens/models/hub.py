"""Models on a hub: found through `huggingface_hub`, with errors that say what to do."""

import json
import socket
import urllib.request
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from xlens.errors import InputError, ModelError
from xlens.models import wheels

# What weights are loaded from: the first kind that there is; and what else is read.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")


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
        raise ModelError(
            f"The model {name!r}{_at(revision)} is not in the hub's cache on this machine, and the "
            f"hub cannot be reached. {_without_hub(name)}"
        ) from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"The model {name!r} is on the hub, but its owner asks you to accept terms first: do "
            "so on its page, then run `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"The model {name!r} has no branch, tag or commit {revision!r}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no model {name!r} on the hub, or it is private "
            "(`hf auth login`). Write it as 'org/model'."
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(
            f"The hub's {name!r}{_at(revision)} has no config.json: it holds no checkpoint for "
            "transformers (only GGUF files, or an adapter?). Download its .gguf file and give its "
            "path; of an adapter, xlens.load(its base model, adapter=its id)."
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise InputError(f"The hub did not give {name!r}{_at(revision)}: {error}") from error
    return config.parent.name, _config_note(config)


def revisions(name: str) -> tuple[str, ...]:
    """Branches and tags of a model.

    Raises:
        ValueError: the hub can't be reached, or has no such model.
    """
    from huggingface_hub import HfApi, errors

    try:
        refs = HfApi().list_repo_refs(name)
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"There is no model {name!r} on the hub, or it is private.") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise ModelError(
            f"The hub can't be asked which revisions {name!r} has ({type(error).__name__}: "
            f"{error}): name them one by one, or list them in a file (series)."
        ) from error
    return tuple(dict.fromkeys(ref.name for ref in (*refs.branches, *refs.tags)))


def size(name: str, commit: str) -> int | None:
    """Bytes that loading a revision would fetch; 0 where it is in the cache, None: not known."""
    from huggingface_hub import errors

    if cached(name, commit):
        return 0
    try:
        return sum(_weights(name, commit).values())
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError):
        return None


def _weights(name: str, commit: str) -> dict[str, int]:
    """The files that the weights are loaded from, with their sizes."""
    from huggingface_hub import HfApi

    found = HfApi().model_info(name, revision=commit, files_metadata=True).siblings or []
    sizes = {file.rfilename: file.size or 0 for file in found if "/" not in file.rfilename}
    for kind in _WEIGHTS:
        if mine := {n: size for n, size in sizes.items() if fnmatchcase(n, kind)}:
            return mine
    return {}


def cached(name: str, commit: str) -> bool:
    """Whether the weights of a revision are on this machine."""
    from huggingface_hub import constants, file_download

    folder = Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(
        repo_id=name, repo_type="model"
    )
    snapshot = folder / "snapshots" / commit
    return any(any(snapshot.glob(kind)) for kind in _WEIGHTS)


def fetch(name: str, commit: str) -> None:
    """Bring a revision's files into the cache, ahead of loading it; what fails, loading tells."""
    from huggingface_hub import snapshot_download

    with suppress(Exception):
        wanted = [*_TEXTS, *_weights(name, commit)]
        snapshot_download(name, revision=commit, allow_patterns=wanted, ignore_patterns=["*/*"])


def release(name: str, commit: str) -> int:
    """Take a revision out of the cache, but for what other revisions share with it.

    Returns:
        Bytes that are free now.
    """
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir().delete_revisions(commit)
    found.execute()
    return int(found.expected_freed_size)


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
