"""The backup copy: a store of chunks on disk, what is in it, and where its blocks lie.

from vmrestorekit.backup import BackupStore, create_copy, export_copy

store = BackupStore.create("store")
first = create_copy(store, "web", ["web.img"])
later = create_copy(store, "web", ["web.img"], kind="incremental")
export_copy(store, first.number, "as-it-was.img")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# public name of this room -> the module that defines it; imported on first use
_NAMES = {
    "BackupCopy": "store",
    "BackupLayout": "layout",
    "BackupStore": "store",
    "CopyContents": "browse",
    "CopySettings": "layout",
    "Damage": "verify",
    "StoreError": "records",
    "create_copy": "create",
    "expire_copies": "retention",
    "export_copy": "export",
    "load_layouts": "copy_layout",
    "open_copy": "reader",
    "recorded_layouts": "copy_layout",
    "save_layouts": "copy_layout",
    "stored_layout": "copy_layout",
    "synthesise_full": "create",
    "verify_store": "verify",
}

__all__ = sorted(_NAMES)

if TYPE_CHECKING:
    from vmrestorekit.backup.browse import CopyContents as CopyContents
    from vmrestorekit.backup.copy_layout import load_layouts as load_layouts
    from vmrestorekit.backup.copy_layout import recorded_layouts as recorded_layouts
    from vmrestorekit.backup.copy_layout import save_layouts as save_layouts
    from vmrestorekit.backup.copy_layout import stored_layout as stored_layout
    from vmrestorekit.backup.create import create_copy as create_copy
    from vmrestorekit.backup.create import synthesise_full as synthesise_full
    from vmrestorekit.backup.export import export_copy as export_copy
    from vmrestorekit.backup.layout import BackupLayout as BackupLayout
    from vmrestorekit.backup.layout import CopySettings as CopySettings
    from vmrestorekit.backup.reader import open_copy as open_copy
    from vmrestorekit.backup.records import StoreError as StoreError
    from vmrestorekit.backup.retention import expire_copies as expire_copies
    from vmrestorekit.backup.store import BackupCopy as BackupCopy
    from vmrestorekit.backup.store import BackupStore as BackupStore
    from vmrestorekit.backup.verify import Damage as Damage
    from vmrestorekit.backup.verify import verify_store as verify_store


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
