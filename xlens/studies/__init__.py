"""Studies: a task, the core and an analysis put together, controls included."""

from xlens._lazy import lazy

_PUBLIC = {
    "CONTROLS": "options",
    "LensStudy": "options",
    "PairStudy": "latent_language",
    "ProcessStudy": "latent_process",
    "SteeringStudy": "steering",
    "check_pair": "latent_language",
    "check_steering": "steering",
    "planned_parts": "latent_process",
    "steer_choices": "steering",
    "study_pair": "latent_language",
    "study_process": "latent_process",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
