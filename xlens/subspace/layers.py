"""`LayerWise`: a subspace per layer, bound to the model and the pooling it was fitted on."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from xlens import files
from xlens.activations import Activations, SlotValues
from xlens.errors import InputError
from xlens.results import jsonable
from xlens.subspace.axes import LSAR, LDAAxes, MeanDifference, PooledPCA
from xlens.subspace.base import Subspace
from xlens.subspace.by_language import LIR, AffineSubspaces, Centering
from xlens.subspace.states import origin, pool, require_unique

HEADER = "subspace.json"
FORMAT = 1
_ARRAYS = "subspace.safetensors"
_AGAIN = "Make it anew: fit the subspace and save it again; verify=False reads it as it is."
_KINDS: dict[str, type[Subspace]] = {
    kind.__name__: kind
    for kind in (PooledPCA, LSAR, LDAAxes, MeanDifference, Centering, LIR, AffineSubspaces)
}


class LayerWise(BaseEstimator):
    """One estimator per layer of some activations.

    >>> LayerWise(LSAR(), pooling="last")
    LayerWise(estimator=LSAR())

    What was fitted remembers model, basis and pooling, and refuses other activations.

    Args:
        estimator: Any of this room's; cloned for each layer.
        pooling: How a prompt becomes one state (`pool`).

    Attributes:
        estimators_: Fitted estimators by layer.
        fingerprint_: Of the model whose states they were fitted on.
        provenance_: Of those states, and what was fitted.
    """

    def __init__(self, estimator: Subspace, *, pooling: str = "last") -> None:
        self.estimator = estimator
        self.pooling = pooling

    def __getitem__(self, layer: int) -> Any:
        """The fitted estimator of a layer."""
        check_is_fitted(self)
        if layer not in self.estimators_:
            raise InputError(f"Layer {layer} was not fitted; {list(self.estimators_)} were.")
        return self.estimators_[layer]

    def fit(self, activations: Activations, y: Any = None) -> Self:
        """Fit a clone per layer; languages come from the activations, `y` is not looked at.

        Raises:
            ValueError: what `pool` or the estimator refuses, with the layer; an item twice.
        """
        require_unique(activations)
        languages = activations.meta["language"].to_numpy(dtype=str)
        self.estimators_: dict[int, Subspace] = {}
        values = pool(activations, self.pooling)
        for layer, states in zip(activations.layers, values, strict=True):
            try:
                # Double precision: states reach 1e5, and sums of
                # squares with them 1e10 times d_model.
                fitted = clone(self.estimator).fit(states.astype(np.float64), languages)  # type: ignore[attr-defined]
            except ValueError as error:
                raise InputError(f"Layer {layer}: {error}") from error
            self.estimators_[layer] = fitted
        self.fingerprint_ = activations.fingerprint
        self.basis_ = activations.basis
        how = {"pooling": self.pooling, "estimator": repr(self.estimator)}
        self.provenance_ = origin(activations, "subspace", **how)
        return self

    def transform(self, activations: Activations) -> dict[int, np.ndarray]:
        """Coordinates `[prompt, rank]` by layer.

        Raises:
            ValueError: activations of another model, basis or pooling, or with a layer that was
                not fitted.
        """
        return self._each(activations, "transform")

    def inverse_transform(
        self, coordinates: dict[int, np.ndarray], languages: Any = None
    ) -> dict[int, np.ndarray]:
        """States `[prompt, d_model]` by layer; `languages` where each language has its own."""
        return {n: self[n].inverse_transform(x, languages) for n, x in coordinates.items()}

    def remove(self, activations: Activations) -> Activations:
        """The activations without their part along the subspace; one slot, named by the pooling.

        Raises:
            ValueError: as `transform`.
        """
        return self._changed(activations, "remove")

    def project(self, activations: Activations) -> Activations:
        """The activations' images in the subspace; one slot, named by the pooling.

        Raises:
            ValueError: as `transform`.
        """
        return self._changed(activations, "project")

    def _each(self, activations: Activations, method: str) -> dict[int, np.ndarray]:
        self._require(activations)
        languages = activations.meta["language"].to_numpy(dtype=str)
        values = pool(activations, self.pooling)
        return {
            layer: getattr(self[layer], method)(states.astype(np.float64), languages)
            for layer, states in zip(activations.layers, values, strict=True)
        }

    def _changed(self, activations: Activations, method: str) -> Activations:
        found = self._each(activations, method)
        n = len(activations)
        kept = activations.slots.get(self.pooling)
        slot = SlotValues(
            values=torch.from_numpy(np.stack(list(found.values()))).float(),
            offsets=torch.arange(n + 1),
            # A slot of one position a prompt keeps them; a mean is nowhere, which -1 says.
            positions=kept.positions
            if kept is not None and kept.dense
            else torch.full((n,), -1, dtype=torch.long),
        )
        done = [*activations.provenance.get("subspaces", []), [method, repr(self.estimator)]]
        provenance = {**activations.provenance, "subspaces": done}
        return replace(activations, slots={self.pooling: slot}, provenance=provenance)

    def _require(self, activations: Activations) -> None:
        check_is_fitted(self)
        activations.require(self.fingerprint_, what="Subspace")
        if activations.basis != self.basis_:
            raise InputError(
                f"This subspace was fitted on states in the basis {self.basis_!r}; these are "
                f"{activations.basis!r}. Fit and transform states of one basis."
            )
        if other := [n for n in activations.layers if n not in self.estimators_]:
            known = [n for n in activations.layers if n in self.estimators_]
            take = f"Take activations.select(layers={known}), or fit" if known else "Fit"
            raise InputError(
                f"Layers {other} of these activations were not fitted, only "
                f"{list(self.estimators_)}: a subspace belongs to its layer. {take} on all layers."
            )

    def save(self, path: str | Path) -> Path:
        """Write to a folder: `subspace.safetensors` and `subspace.json`.

        Raises:
            ValueError: the folder holds files of somebody else.
            OSError: it can't be written.
        """
        from safetensors.numpy import save

        check_is_fitted(self)
        folder = Path(path)
        arrays: dict[str, np.ndarray] = {}
        plain: dict[str, dict[str, Any]] = {}
        for layer, fitted in self.estimators_.items():
            plain[str(layer)] = {}
            for name, value in _results(fitted).items():
                # safetensors holds no strings: names of languages go into the JSON.
                if isinstance(value, np.ndarray) and value.dtype.kind != "U":
                    arrays[f"{layer}/{name}"] = np.ascontiguousarray(value)
                else:
                    plain[str(layer)][name] = jsonable(
                        value.tolist() if isinstance(value, np.ndarray) else value
                    )
        header = {
            "format": FORMAT,
            "estimator": type(self.estimator).__name__,
            "options": jsonable(self.estimator.get_params(deep=False)),
            "pooling": self.pooling,
            "fingerprint": self.fingerprint_,
            "basis": self.basis_,
            "provenance": jsonable(self.provenance_),
            "results": plain,
        }
        with files.saving(folder, HEADER, [_ARRAYS], "a subspace") as draft:
            files.write(draft / _ARRAYS, save(arrays))
            files.seal(draft, HEADER, header)
        return folder

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> Self:
        """Read what `save` wrote.

        Args:
            path: Its folder.
            verify: Compare every file with the digest in the header.

        Raises:
            ValueError: no subspace there, or another format.
            DamagedError: a file is not what was written; says which. A `ValueError` too.
        """
        folder = Path(path)
        if not files.present(folder, HEADER):
            raise InputError(
                f"No subspace at {str(folder)!r}: expected a folder with subspace.json, as "
                "LayerWise.save(path) writes it."
            )

        def known(header: dict[str, Any]) -> None:
            if header.get("format") != FORMAT or header.get("estimator") not in _KINDS:
                raise InputError(
                    f"{str(folder)!r} holds a {header.get('estimator')} of format "
                    f"{header.get('format')}; this xlens reads format {FORMAT} and "
                    f"{sorted(_KINDS)}. Read it with the xlens that wrote it, or fit it anew."
                )

        def read(header: dict[str, Any]) -> Self:
            return cls._read(folder, header)

        return files.unsealed(folder, HEADER, read, known=known, again=_AGAIN, verify=verify)

    @classmethod
    def _read(cls, folder: Path, header: dict[str, Any]) -> Self:
        from safetensors.numpy import load_file

        kind, options = _KINDS[header["estimator"]], header["options"]
        self = cls(kind(**options), pooling=header["pooling"])
        self.fingerprint_, self.basis_ = header["fingerprint"], header["basis"]
        self.provenance_ = header["provenance"]
        self.estimators_ = {}
        # JSON's keys are strings, and "10" sorts before "2".
        for layer in sorted(map(int, header["results"])):
            fitted = kind(**options)
            for name, value in header["results"][str(layer)].items():
                setattr(fitted, name, np.array(value) if isinstance(value, list) else value)
            self.estimators_[layer] = fitted
        for key, value in load_file(folder / _ARRAYS).items():
            layer, _, name = key.partition("/")
            setattr(self.estimators_[int(layer)], name, value)
        return self


def _results(fitted: Subspace) -> dict[str, Any]:
    """What fitting found: attributes that end in an underscore."""
    return {k: v for k, v in vars(fitted).items() if k.endswith("_") and not k.startswith("_")}
