"""What becomes of a submission that Slurm does not take."""

from __future__ import annotations

from hpk.model.errors import PermanentError, TransientError
from hpk.model.ids import PodUid
from kubelet.submission.repeated import OVER_S, TIMES, RepeatedRefusals

ONE = PodUid("0a1b")


def odd(number: int, reason: str = "Refused") -> TransientError:
    """A refusal whose number alone differs."""
    return TransientError(f"lua: odd thing {number}", reason=reason)


def test_unknown_words_are_final_only_when_they_come_again_and_again() -> None:
    refusals = RepeatedRefusals()
    for number in range(TIMES - 1):
        assert isinstance(refusals.judge(ONE, odd(number), now_s=OVER_S * number), TransientError)
    settled = refusals.judge(ONE, odd(9), now_s=OVER_S * TIMES)
    assert isinstance(settled, PermanentError)
    assert settled.reason == "SlurmRefused"
    assert settled.message == "lua: odd thing 9"


def test_they_are_not_final_within_minutes_or_when_others_come_between() -> None:
    refusals = RepeatedRefusals()
    for number in range(TIMES * 2):
        assert isinstance(refusals.judge(ONE, odd(number), now_s=float(number)), TransientError)
    refusals.judge(ONE, TransientError("else", reason="Refused"), now_s=OVER_S)
    assert isinstance(refusals.judge(ONE, odd(1), now_s=OVER_S * 2), TransientError)
    known = odd(1, reason="SubmitLimit")
    assert refusals.judge(ONE, known, now_s=OVER_S * 9) is known
