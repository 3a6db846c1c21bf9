"""Studies: a task, the core and an analysis put together, controls included."""

from xlens._lazy import lazy

_PUBLIC = {
    "CONTROLS": "options",
    "Leaderboard": "leaderboard",
    "LensStudy": "options",
    "PairStudy": "latent_language",
    "ProcessStudy": "latent_process",
    "ReadingStudy": "options",
    "SteeringStudy": "steering",
    "check_pair": "latent_language",
    "check_reading": "context_retrieval",
    "check_steering": "steering",
    "leaderboard": "leaderboard",
    "planned_parts": "latent_process",
    "steer_choices": "steering",
    "study_pair": "latent_language",
    "study_process": "latent_process",
    "study_reading": "context_retrieval",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
