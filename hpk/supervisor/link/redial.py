"""How long the channel waits before it dials the kubelet again."""

from __future__ import annotations

_SHORTEST_S = 0.1
_LONGEST_S = 60.0
_SHARE = 0.25


def compute_pause_s(away_s: float, chance: float) -> float:
    """Seconds until the next try: a quarter of how long the kubelet has been away, 0.1 to 60.

    So who works on a pod waits little longer than the kubelet was away, whether that was restarted
    in a second or came back on another node after minutes, and one that stays away is dialled
    seldom. Up to half is cut, or all the pods of a kubelet that comes back dial in waves.

    :param away_s: seconds since a connection that had lasted was lost, or since the first try.
    :param chance: from 0 to 1, at random.
    """
    whole_s = min(max(away_s * _SHARE, _SHORTEST_S), _LONGEST_S)
    return whole_s * (1 - chance / 2)
