"""What a media agent tells of itself: its state as plain data, and how well it inferred the relocation."""

from __future__ import annotations

from typing import Any

import numpy as np

from vmrestorekit.lab.media.read_server import ReadServer
from vmrestorekit.restore.events import READERS

__all__ = ["measured_figures", "purge_quality", "status_of"]


def status_of(server: ReadServer) -> dict[str, Any]:
    """Return a media agent's figures as plain data; sizes in blocks unless named otherwise."""
    rules, device = server.rules, server.device
    cache, queue = rules.cache, rules.queue
    return {
        "mode": rules.plan.mode,
        "block_bytes": server.block_bytes,
        "disk_bytes": list(server.disk_bytes),
        "first_set": {"blocks": len(rules.stager.first_set), "staged": len(rules.staged_first_set)},
        "launch": {
            "rule": rules.plan.launch.rule,
            "head_start_ns": rules.plan.launch.head_start_ns,
            "needs_staged": rules.staged_to_launch,
            "has_staged_enough": rules.has_staged_enough,
        },
        "cache": {"slots": cache.slots, "used": cache.used, "peak": cache.peak, "evicted": cache.evicted},
        "hits": rules.hits,
        "waits": rules.waits,
        "misses": rules.misses,
        "refetch_after_purge": rules.refetches,
        "inferred_runs": rules.purger.inferred,
        "purged": rules.purger.purged,
        "purge_quality": purge_quality(server),
        "media_fetches": queue.fetches,
        "media_bytes": queue.bytes_read,
        "queue": len(queue.waiting),
        "in_flight": len(queue.in_flight),
        "relocated": sum(rules.stager.relocated),
        "open_reads": len(server.open),
        "failed_reads": server.failed_reads,
        "reads": dict(zip(READERS, server.reads, strict=True)),
        "read_bytes": dict(zip(READERS, server.read_bytes, strict=True)),
        "device_late_ns": device.late_ns,
        "device_late_fetches": device.late_fetches,
        "device_failed_blocks": device.failed_blocks,
        "checks_signatures": server.source.is_signed,
        "events": len(server.log),
        "events_lost": server.log.lost,
    }


def purge_quality(server: ReadServer) -> dict[str, int | float | None]:
    """Return how well the purged blocks are those that the relocation has read, which the agent is not told.

    `precision`: of the purged blocks, the share that was sent to the relocation. `recall`: of the blocks that
    were sent to the relocation, the share that was purged. None where there are no such blocks.
    """
    purged = np.frombuffer(server.rules.purger.ever_purged, np.bool_)
    read = np.frombuffer(server.read_by_relocation, np.bool_)
    both = int(np.count_nonzero(purged & read))
    of_purged, of_read = int(np.count_nonzero(purged)), int(np.count_nonzero(read))
    return {
        "purged_blocks": of_purged,
        "relocation_blocks": of_read,
        "precision": both / of_purged if of_purged else None,
        "recall": both / of_read if of_read else None,
    }


def measured_figures(server: ReadServer) -> dict[str, int | float | None]:
    """Return those figures of a summary that the agent knows better than its events tell."""
    queue = server.rules.queue
    return {
        "media_fetches": queue.fetches,
        "media_bytes": queue.bytes_read,
        "peak_cache_bytes": server.rules.cache.peak * server.block_bytes,
    }
