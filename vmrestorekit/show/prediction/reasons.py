"""What is known of one block of the read cache: its files, what predictors say of it, and why they do."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from html import escape

import numpy as np

from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.predict.explain import explain_block
from vmrestorekit.predict.explanation import BlockExplanation, Contribution
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.show.prediction.data import Needs, Prediction
from vmrestorekit.show.theme import BLUE, VERMILLION

__all__ = ["files_in", "reasons", "small_block_of", "what_it_is", "what_predictors_say"]

_NAMED = 3  # files that a sentence names
_SLIGHT = 0.05  # contributions that are not worth a bar
_SAME = {
    "address": "the same address of the disk",
    "content": "the same content, wherever it lay",
    "path": "the same place of a file of the same path",
}


def files_in(needs: Needs, block: int) -> dict[str, tuple[int, int]]:
    """Return of each file with stored 4 KiB blocks in a block how many these are, and how many are read."""
    rows = np.flatnonzero((needs.small_block == block) & needs.small_stored)
    found: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for row in rows.tolist():
        path = needs.files["path"][int(needs.small_file[row])] or "no file"
        found[path][0] += 1
        found[path][1] += int(needs.small_read[row])
    most = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return {path: (stored, read) for path, (stored, read) in most}


def what_it_is(needs: Needs, block: int) -> str:
    """Return where a block lies and whose it is, as a sentence."""
    first = first_block_of_disk(needs.boot.disk_bytes, needs.block_bytes)
    disk = int(np.searchsorted(first, block, side="right")) - 1
    place = needs.megabytes(block - first[disk])
    files = files_in(needs, block)
    named = [
        f"{path} ({4 * stored} KiB, of which the boot reads {4 * read})"
        for path, (stored, read) in list(files.items())[:_NAMED]
    ]
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return f"Block {block:,}, {place:,.1f} MB from the start of disk {disk}. In it: {', '.join(named)}{more}."


def what_predictors_say(predictions: Iterable[Prediction], block: int, budget: int) -> str:
    """Return a table, as HTML, of what each predictor says of a block."""
    rows = []
    for each in predictions:
        place = int(each.place[block])
        is_chosen = place < each.chosen.size
        when = each.scores["first_read_ns"][block] if is_chosen else None
        cells = (
            f"{each.scores['probability'][block]:.2f}",
            "–" if when is None else f"{when / 1e9:.1f} s",
            f"{place + 1:,}." if is_chosen else "not in its list",
            "yes" if place < each.staged(budget) else "no",
        )
        rows.append(f"<tr><th>{escape(each.name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = ("predictor", "probability", "first read about", "place by probability", "staged")
    return (
        f"<table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def small_block_of(prediction: Prediction, block: int) -> tuple[int, int]:
    """Return disk and number of the 4 KiB block that says most of a block: the likeliest of those read."""
    needs = prediction.needs
    rows = np.flatnonzero((needs.small_block == block) & needs.small_stored)
    if needs.small_read[rows].any():
        rows = rows[needs.small_read[rows]]
    disk = int(needs.small_disk[rows[0]])
    scores = prediction.predictor.score_blocks(needs.boot.manifests[disk], disk)
    numbers = needs.small_number[rows]
    likeliest = int(np.argmax(scores["probability"].to_numpy()[numbers]))
    return disk, int(numbers[likeliest])


def reasons(prediction: Prediction, block: int) -> str:
    """Return, as HTML, why a predictor expects a block to be read, or not.

    A learned predictor is asked of the 4 KiB block that says most; that takes a second or two. A list has but
    one reason: that somebody read the like.
    """
    disk, number = small_block_of(prediction, block)
    predictor, needs = prediction.predictor, prediction.needs
    if isinstance(predictor, LearnedPredictor):
        return _explained(explain_block(predictor, needs.boot.manifests[disk], number, disk))
    by = getattr(predictor, "by", None)
    same = _SAME.get(by if isinstance(by, str) else "", "the like")
    when = predictor.score_blocks(needs.boot.manifests[disk], disk)["first_read_ns"][number]
    place = int(prediction.place[block])
    if place < prediction.chosen.size:
        seen = "" if when is None else f", first after {when / 1e9:.1f} s"
        said = f"a boot that it knows read {same}{seen}"
        if when is None:  # it is another 4 KiB block of this block that is in the list
            said = f"a boot that it knows read {same} as another 4 KiB of this block"
        return f"<p><b>{escape(prediction.name)}</b> expects this block: {said}. It knows nothing else.</p>"
    return (
        f"<p><b>{escape(prediction.name)}</b> does not expect this block: no boot that it knows read {same}. "
        "It knows nothing else.</p>"
    )


def _explained(why: BlockExplanation) -> str:
    # what adds to the logarithm of the odds is drawn below, not told in words
    told = [line for line in str(why).splitlines() if "speaks " not in line and not line.startswith("(")]
    lines = "".join(f"<li>{escape(line)}</li>" for line in told)
    groups = [each for each in why.contributions if abs(each.share) >= _SLIGHT]
    caption = (
        f"By what other machines did it is {why.stranger_probability:.2f}; nothing known, it would be "
        f"{why.nothing_known:.2f}. What each kind of knowledge adds to the logarithm of the odds (+0.7 "
        "doubles them):"
    )
    return f'<ul style="margin:4px 0;padding-left:18px">{lines}</ul>{_bars(groups, caption)}'


def _bars(contributions: list[Contribution], caption: str) -> str:
    longest = max((abs(each.share) for each in contributions), default=1.0)
    rows = []
    for each in contributions:
        colour, sign = (BLUE, "for") if each.share > 0 else (VERMILLION, "against")
        bar = (
            f'<span style="display:inline-block;height:10px;width:{130 * abs(each.share) / longest:.0f}px;'
            f'background:{colour}"></span>'
        )
        rows.append(
            f"<tr><th>{escape(each.group)}</th><td>{sign}</td><td>{each.share:+.1f}</td>"
            f'<td style="text-align:left">{bar}</td></tr>'
        )
    head = '<caption style="font-weight:400">' + escape(caption) + "</caption>"
    return f"<table>{head}<tbody>{''.join(rows)}</tbody></table>"
