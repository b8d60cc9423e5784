"""What must hold whatever went wrong. Pure: from what was noted and seen to what was violated."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from tests.chaos.observer import Seen


def runs(notes: Sequence[Sequence[str]], seen: Mapping[str, Seen]) -> list[str]:
    """Each Pod that never restarts ran once, and of two Pods of one name never both at a time."""
    found = []
    starts: dict[str, int] = defaultdict(int)
    spans: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for uid, name, word, time in notes:
        starts[uid] += word == "start"
        span = spans[name].setdefault(uid, [int(time), int(time)])
        span[0], span[1] = min(span[0], int(time)), max(span[1], int(time))
    for uid, count in starts.items():
        if count > 1 and uid in seen and seen[uid].never_restarts:
            found.append(f"pod {seen[uid].name} ({uid}) ran {count} times")
    for name, by_uid in spans.items():
        ordered = sorted(by_uid.values())
        for (_, ended), (began, _) in itertools.pairwise(ordered):
            if began < ended:
                found.append(f"two pods {name} ran at the same time, for {ended - began} s")
    return found


def verdicts(
    notes: Sequence[Sequence[str]], seen: Mapping[str, Seen], victims: Collection[str]
) -> list[str]:
    """None is Failed that did its work, or that nothing has killed."""
    done = {uid for uid, _, word, _ in notes if word == "done"}
    found = []
    for pod in seen.values():
        if pod.uid in victims:
            continue
        why = f"{pod.reason}: {pod.message}"
        if pod.phase == "Failed":
            work = "did its work" if pod.uid in done else "was killed by nothing"
            found.append(f"pod {pod.name} ({pod.uid}) {work} and is Failed ({why})")
        if pod.phase == "Succeeded" and pod.never_restarts and pod.uid not in done:
            found.append(f"pod {pod.name} ({pod.uid}) is Succeeded and did not do its work ({why})")
    return found
