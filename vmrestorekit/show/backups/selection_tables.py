"""What a selection takes, beside a boot and a full restore; and whose blocks are: figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, first_block_of_disk
from vmrestorekit.show.backups.backed_up_disk import BackedUpCopy, Blocks
from vmrestorekit.show.backups.file_selection import FileSelection, by_cache_block
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import share, size
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["bytes_read_by_boot", "bytes_stored", "cost_table", "many", "owners_of", "owners_table"]

_MOST_FILES = 8


def owners_of(selection: FileSelection, cache_blocks: Blocks, block_bytes: int) -> list[dict[str, Any]]:
    """Return whose the stored 4 KiB blocks in these cache blocks are, those with most that is needed first.

    Returns
    -------
    list of dict
        ``disk``, ``file`` (-1: of none), ``path``, ``blocks``, ``chosen``, ``leads``, ``read``.
    """
    rows = []
    per_block = block_bytes // MANIFEST_BLOCK_BYTES
    starts = first_block_of_disk(selection.copy.disk_bytes, block_bytes)
    for disk, here in enumerate(selection.copy.disks):
        inside = cache_blocks - starts[disk]
        inside = inside[(inside >= 0) & (inside * per_block < len(here.stored))]
        blocks = (inside[:, None] * per_block + np.arange(per_block)).ravel()
        blocks = blocks[blocks < len(here.stored)]
        blocks = blocks[here.stored[blocks]]
        is_chosen, leads = (np.isin(blocks, needed) for needed in selection.blocks(disk))
        is_read = here.read[blocks] if here.read is not None else np.zeros(len(blocks), np.bool_)
        owners, place = np.unique(here.owner[blocks], return_inverse=True)
        counts = [np.bincount(place, weights, len(owners)) for weights in (None, is_chosen, leads, is_read)]
        for at, file in enumerate(owners.tolist()):
            path = here.paths[file] if file >= 0 else "no file (free, or of nobody known)"
            figures = {
                name: int(count[at])
                for name, count in zip(("blocks", "chosen", "leads", "read"), counts, strict=True)
            }
            rows.append({"disk": disk, "file": file, "path": path, **figures})
    return sorted(rows, key=lambda row: (-row["chosen"], -row["leads"], -row["blocks"], row["path"]))


def owners_table(name: str, owners: Sequence[Mapping[str, Any]]) -> str:
    """Return what `owners_of` found as HTML."""
    if not owners:
        return f"<p><b>{escape(name)}</b>: nothing is stored here; the backup copy has a hole.</p>"
    body = "".join(
        f'<tr><th scope="row" style="overflow-wrap:anywhere;white-space:normal">{escape(row["path"])}</th>'
        + "".join(f"<td>{row[name]:,}</td>" for name in ("blocks", "chosen", "leads", "read"))
        + "</tr>"
        for row in owners[:_MOST_FILES]
    )
    more = len(owners) - _MOST_FILES
    rest = f'<p class="soft">and {more:,} more.</p>' if more > 0 else ""
    heads = "".join(
        f'<th scope="col">{text}</th>' for text in ("of", "stored here", "chosen", "lead there", "boot reads")
    )
    return (
        f"<table><caption>{escape(name)}: 4 KiB blocks</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table>{rest}"
    )


def cost_table(selection: FileSelection, block_bytes: int) -> str:
    """Return what the selection takes, beside what a boot and a full restore take, as HTML."""
    cost = selection.cost(block_bytes)
    read = f", of which the recorded boot reads {cost.blocks_read:,}" if _knows_reads(selection.copy) else ""
    rows = {
        "Chosen": f"{many(cost.files, 'file or folder', 'files and folders')}, {size(cost.file_bytes)}",
        "Their stored blocks": f"{cost.blocks:,} of 4 KiB{read}",
        "What leads to them": f"{cost.blocks_leading:,} more of 4 KiB: start of the file system, folders",
        "To be fetched": f"{many(len(cost.cache_blocks), 'block')} of {size(block_bytes)}",
        "What comes along": f"{cost.blocks_along:,} of 4 KiB, of {many(cost.files_along, 'other file')}",
    }
    own = "".join(f'<tr><th scope="row">{name}</th><td>{text}</td></tr>' for name, text in rows.items())
    whole = bytes_stored(selection.copy, block_bytes)
    ways = {"for the selection": cost.media_bytes}
    if _knows_reads(selection.copy):
        ways["to boot the machine"] = bytes_read_by_boot(selection.copy, block_bytes)
    ways["for a full restore"] = whole
    most = max(*ways.values(), 1)
    bars = "".join(
        f'<tr><th scope="row">{name}</th><td>{size(count)}</td><td>{_percent(count, whole)}</td>'
        f'<td style="width:160px"><div aria-hidden="true" style="height:10px;width:{100 * count / most:.1f}%;'
        'min-width:1px;background:var(--vmrk-flow)"></div></td></tr>'
        for name, count in ways.items()
    )
    return styled(
        '<div style="display:flex;flex-wrap:wrap;gap:4px 36px;align-items:flex-start">'
        f"<table><caption>What was chosen</caption><tbody>{own}</tbody></table>"
        f"<table><caption>Read from the backup, in blocks of {size(block_bytes)}</caption>"
        f"<tbody>{bars}</tbody></table></div>"
    )


def _percent(part: int, whole: int) -> str:
    return "&lt; 1 %" if 0 < part < whole / 100 else share(part, whole)


def bytes_stored(copy: BackedUpCopy, block_bytes: int = DEFAULT_BLOCK_BYTES) -> int:
    """Return how many bytes a copy stores in cache blocks of this size: what a full restore reads."""
    return sum(_cache_blocks(disk.stored, block_bytes) for disk in copy.disks) * block_bytes


def bytes_read_by_boot(copy: BackedUpCopy, block_bytes: int = DEFAULT_BLOCK_BYTES) -> int:
    """Return how many bytes lie in cache blocks of which the recorded boot reads anything stored."""
    return (
        sum(
            _cache_blocks(disk.stored & disk.read, block_bytes)
            for disk in copy.disks
            if disk.read is not None
        )
        * block_bytes
    )


def _cache_blocks(mask: Any, block_bytes: int) -> int:
    return int(by_cache_block(mask, block_bytes).any(axis=1).sum())


def _knows_reads(copy: BackedUpCopy) -> bool:
    return all(disk.read is not None for disk in copy.disks)


def many(count: int, one: str, more: str = "") -> str:
    """Return a count with its noun, such as ``'1 file'`` or ``'2 files'``."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
