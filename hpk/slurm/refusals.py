"""What Slurm's refusals mean: sbatch's words to PermanentError or TransientError. No I/O.

Words that nobody here knows may be a database that timed out or a full disk as well as a no for
good: they are transient, and kubelet.submission counts how often they come again.
"""

from __future__ import annotations

import re

from hpk.model.errors import HpkError, PermanentError, TransientError

SUBMIT_LIMIT = "SubmitLimit"
UNREACHABLE = "Unreachable"
UNKNOWN = "Unknown"
"""Slurm did not answer, but may have accepted: look for the job by its name first."""
NOT_NOW = "NotNow"
REFUSED = "SlurmRefused"
UNKNOWN_WORDS = "Refused"
"""Slurm refused in words that are not known here."""

_PREFIX = re.compile(r"^(?:sbatch|scancel|squeue|sacct|sacctmgr|scontrol): (?:(?:error|fatal): )?")

# In order; the first that is found decides. Source: slurm_errno.c and sbatch.c.
_TRANSIENT: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"Max(Submit|Jobs?)\w*Limit|GrpSubmit\w*Limit|AssocGrp\w*|QOSGrp\w*", SUBMIT_LIMIT),
        (r"Job violates accounting/QOS policy", SUBMIT_LIMIT),
        (r"Requested account has breached requested QOS usage threshold", SUBMIT_LIMIT),
        (r"Slurm temporarily unable to accept job", SUBMIT_LIMIT),
        (r"connect failure|Connection refused|No route to host", UNREACHABLE),
        (r"Slurm backup controller in standby mode|Controller is in standby mode", UNREACHABLE),
        (r"Could not establish a configuration source|failed to fetch config", UNREACHABLE),
        (r"Socket timed out|Zero Bytes were transmitted|Connection reset", UNKNOWN),
        (r"Unable to contact slurm controller|Message (send|receive) failure", UNKNOWN),
        (r"Transport endpoint|Unexpected message received", UNKNOWN),
        (r"Failed to connect to authentication agent|munge|Munge", UNREACHABLE),
        (r"Protocol authentication error|Invalid authentication credential", UNREACHABLE),
        (r"System submissions disabled|submission currently disabled", NOT_NOW),
        (r"Required partition not available|Partition in DOWN state", NOT_NOW),
        (r"Required node not available", NOT_NOW),
        (r"Unable to create job record|I/O error writing script", NOT_NOW),
        (r"Slurm internal error|Requested reservation not usable now", NOT_NOW),
        (r"Resource temporarily unavailable|Cannot allocate memory|\bfork\b", NOT_NOW),
        (r"Disk quota exceeded|No space left on device|Too many open files", NOT_NOW),
    )
)

_PER_JOB = re.compile(r"\b(QOS|Assoc)(Max|Min)\w*(PerJob|PerNode|NotSatisfied)\w*|\w+PerJobLimit\b")
"""Limits on one job, in which waiting changes nothing."""

_REMEDIES: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason, remedy)
    for pattern, reason, remedy in (
        (
            r"Invalid account",
            "SlurmInvalidAccount",
            "choose an account of yours with --account in the flags annotation;"
            " `sacctmgr show associations user=$USER` lists them",
        ),
        (r"Invalid qos", "SlurmInvalidQos", "choose a QOS of yours with --qos"),
        (r"Invalid partition|No partition", "SlurmInvalidPartition", "choose another virtual node"),
        (
            r"User's group not permitted|Access/permission denied",
            "SlurmAccessDenied",
            "choose another partition by nodeSelector",
        ),
        (
            r"node configuration is not available|partition configuration not available"
            r"|Memory required by task|More processors requested|Node count specification"
            r"|more tasks than available|CPU count specification",
            "SlurmUnsatisfiable",
            "ask for less, or for what a node of the partition has",
        ),
        (r"\btime limit\b", "SlurmInvalidTimeLimit", "give --time in the flags annotation"),
        (r"\breservation\b", "SlurmInvalidReservation", "check --reservation"),
        (r"\bnode name\b", "SlurmInvalidNodelist", "check --nodelist and --exclude"),
        (r"\bfeatures?\b", "SlurmInvalidConstraint", "check --constraint"),
        (r"\bgres\b", "SlurmInvalidGres", "check --gres and the GPUs the Pod asks for"),
        (r"\blicenses?\b", "SlurmInvalidLicenses", "check --licenses"),
        (r"\bdependency\b", "SlurmInvalidDependency", "check --dependency"),
        (
            r"unrecognized option|invalid option|requires an argument|\bInvalid .*\bspecif\w+"
            r"|does not look like a batch script|DOS line breaks",
            REFUSED,
            "",
        ),
    )
)


def refusal(program: str, stderr: str, *, exit_code: int) -> HpkError:
    """The error a failed program stands for; its message holds Slurm's own words."""
    words = slurm_words(stderr) or f"{program} ended with {exit_code} and said nothing"
    if "MaxWallDuration" in words:
        return PermanentError(
            words, reason="SlurmQosLimit", remedy="give a shorter --time in the flags annotation"
        )
    if _PER_JOB.search(words):
        return PermanentError(
            words, reason="SlurmQosLimit", remedy="ask for less, or choose another QOS with --qos"
        )
    for pattern, reason in _TRANSIENT:
        if pattern.search(words):
            return TransientError(words, reason=reason)
    if exit_code < 0:
        return TransientError(f"{program} was killed by signal {-exit_code}", reason=UNKNOWN)
    for permanent, reason, remedy in _REMEDIES:
        if permanent.search(words):
            return PermanentError(words, reason=reason, remedy=remedy)
    return TransientError(words, reason=UNKNOWN_WORDS)


def slurm_words(stderr: str) -> str:
    """What a Slurm program said, without its name before each line."""
    lines = (_PREFIX.sub("", line.strip()) for line in stderr.splitlines())
    return "; ".join(line for line in lines if line)[-2000:]
