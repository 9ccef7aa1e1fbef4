"""Instant VM restore and live mount: see them, predict them, measure them.

The public names below are imported on first use (PEP 562), so that ``import vmrestorekit`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> the module that defines it; this table is the whole public interface
_PUBLIC = {
    "Boot": "vmrestorekit.traces.corpus",
    "Corpus": "vmrestorekit.traces.corpus",
    "load_corpus": "vmrestorekit.traces.corpus",
    "ReadTrace": "vmrestorekit.traces.schema",
    "Manifest": "vmrestorekit.traces.manifest",
    "LastBootReplay": "vmrestorekit.predict.replay",
    "ContentHashReplay": "vmrestorekit.predict.replay",
    "LearnedPredictor": "vmrestorekit.predict.learned",
    "save_model": "vmrestorekit.predict.saved_model",
    "load_model": "vmrestorekit.predict.saved_model",
    "make_plan": "vmrestorekit.predict.planning",
    "RestorePlan": "vmrestorekit.plan",
    "Hardware": "vmrestorekit.restore.hardware",
    "Timeline": "vmrestorekit.restore.timeline",
    "simulate": "vmrestorekit.restore.simulate",
    "compare": "vmrestorekit.restore.simulate",
    "why": "vmrestorekit.restore.explain",
    "waits": "vmrestorekit.restore.explain",
    "difference": "vmrestorekit.restore.difference",
    "MediaAgents": "vmrestorekit.restore.storm",
    "Restore": "vmrestorekit.restore.storm",
    "simulate_storm": "vmrestorekit.restore.storm",
    "sweep": "vmrestorekit.analysis.sweep",
    "replay_cache": "vmrestorekit.restore.replay",
    "miss_ratio_curve": "vmrestorekit.restore.replay",
    "Guess": "vmrestorekit.show.guessing.guess",
    "BackupBrowser": "vmrestorekit.show.backups.browser",
    "CacheExplorer": "vmrestorekit.show.cache.explorer",
    "FirstSetPicker": "vmrestorekit.show.first_set.picker",
    "PolicyExplorer": "vmrestorekit.show.policy.explorer",
    "PredictorExplorer": "vmrestorekit.show.prediction.explorer",
    "RelocationExplorer": "vmrestorekit.show.relocation.explorer",
    "Stepper": "vmrestorekit.show.restore.stepper",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from vmrestorekit.analysis.sweep import sweep as sweep
    from vmrestorekit.plan import RestorePlan as RestorePlan
    from vmrestorekit.predict.learned import LearnedPredictor as LearnedPredictor
    from vmrestorekit.predict.planning import make_plan as make_plan
    from vmrestorekit.predict.replay import ContentHashReplay as ContentHashReplay
    from vmrestorekit.predict.replay import LastBootReplay as LastBootReplay
    from vmrestorekit.predict.saved_model import load_model as load_model
    from vmrestorekit.predict.saved_model import save_model as save_model
    from vmrestorekit.restore.difference import difference as difference
    from vmrestorekit.restore.explain import waits as waits
    from vmrestorekit.restore.explain import why as why
    from vmrestorekit.restore.hardware import Hardware as Hardware
    from vmrestorekit.restore.replay import miss_ratio_curve as miss_ratio_curve
    from vmrestorekit.restore.replay import replay_cache as replay_cache
    from vmrestorekit.restore.simulate import compare as compare
    from vmrestorekit.restore.simulate import simulate as simulate
    from vmrestorekit.restore.storm import MediaAgents as MediaAgents
    from vmrestorekit.restore.storm import Restore as Restore
    from vmrestorekit.restore.storm import simulate_storm as simulate_storm
    from vmrestorekit.restore.timeline import Timeline as Timeline
    from vmrestorekit.show.backups.browser import BackupBrowser as BackupBrowser
    from vmrestorekit.show.cache.explorer import CacheExplorer as CacheExplorer
    from vmrestorekit.show.first_set.picker import FirstSetPicker as FirstSetPicker
    from vmrestorekit.show.guessing.guess import Guess as Guess
    from vmrestorekit.show.policy.explorer import PolicyExplorer as PolicyExplorer
    from vmrestorekit.show.prediction.explorer import PredictorExplorer as PredictorExplorer
    from vmrestorekit.show.relocation.explorer import RelocationExplorer as RelocationExplorer
    from vmrestorekit.show.restore.stepper import Stepper as Stepper
    from vmrestorekit.traces.corpus import Boot as Boot
    from vmrestorekit.traces.corpus import Corpus as Corpus
    from vmrestorekit.traces.corpus import load_corpus as load_corpus
    from vmrestorekit.traces.manifest import Manifest as Manifest
    from vmrestorekit.traces.schema import ReadTrace as ReadTrace


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vmrestorekit' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
