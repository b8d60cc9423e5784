"""Times as sbatch takes them: minutes, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``."""

from __future__ import annotations


def duration_s(text: str) -> int | None:
    """Seconds in a time of the form that hpk.planning.sbatch_options lets pass; None: no limit."""
    if text in ("UNLIMITED", "INFINITE", "-1"):
        return None
    head, has_days, rest = text.partition("-")
    if has_days:
        hours, minutes, seconds = ([int(part) for part in rest.split(":")] + [0, 0])[:3]
        return ((int(head) * 24 + hours) * 60 + minutes) * 60 + seconds
    parts = [int(part) for part in text.split(":")]
    if len(parts) == 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2]
    return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)


def format_duration(time_s: int) -> str:
    """``D-HH:MM:SS``, rounded up to the minutes in which Slurm counts."""
    minutes = -(-time_s // 60)
    days, rest = divmod(minutes, 24 * 60)
    return f"{days}-{rest // 60:02}:{rest % 60:02}:00"
