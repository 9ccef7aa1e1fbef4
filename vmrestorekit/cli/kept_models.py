"""Models that were learned once are kept, because learning from all recorded machines takes minutes.

They lie in the user's folder for caches, or where ``VMRESTOREKIT_CACHE`` says. A name holds a digest of what
was learned from, with which parameters and which code: nothing outdated is ever found.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vmrestorekit.cli.shared import progress_of

if TYPE_CHECKING:
    from vmrestorekit.predict.base import BlockPredictor
    from vmrestorekit.predict.learned import LearnedPredictor
    from vmrestorekit.traces.corpus import Boot, Corpus

LEARNED = "learned"


def kept_predictor(name: str, boot: Boot, corpus: Corpus) -> BlockPredictor:
    """Return what `predictor_by_name` does; what is learned is learned only once."""
    from vmrestorekit.predict.by_name import other_lineages, predictor_by_name
    from vmrestorekit.predict.learned import LearnedPredictor
    from vmrestorekit.predict.saved_model import fingerprint_of, load_model, save_model

    if name != LEARNED:
        return predictor_by_name(name, boot, corpus)
    others = other_lineages(boot, corpus, name)
    predictor, fingerprint = LearnedPredictor(), fingerprint_of(others)
    file = models_folder() / f"{_digest(predictor, fingerprint)}.npz"
    if file.is_file():
        try:
            return load_model(file)
        except ValueError as error:  # damaged: it is made again
            print(f"learning again, because the kept model cannot be used: {error}", file=sys.stderr)
    with progress_of(f"learning from {len(others)} machines, once", bytes_of=False):
        predictor.fit(others)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_model(predictor, file, trained_on=fingerprint)
    return predictor


def models_folder() -> Path:
    """Return the folder in which models are kept."""
    import platformdirs

    return (
        Path(os.environ.get("VMRESTOREKIT_CACHE") or platformdirs.user_cache_dir("vmrestorekit")) / "models"
    )


def _digest(predictor: LearnedPredictor, fingerprint: dict[str, object]) -> str:
    from vmrestorekit.predict.source_digest import source_digest

    made_with = [fingerprint["digest"], predictor.get_params(), source_digest(type(predictor).__module__)]
    return hashlib.blake2b(json.dumps(made_with).encode(), digest_size=16).hexdigest()
