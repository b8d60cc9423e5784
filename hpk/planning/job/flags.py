"""The annotation ``slurm-job.hpk.io/flags``: split like a shell would, each option checked.

Nothing here ever becomes shell text. What comes out are long option names with values that match
the table in hpk.planning.job.sbatch_options; control characters cannot pass.
"""

from __future__ import annotations

import difflib
import shlex

from hpk.model.errors import AdmissionError
from hpk.model.plan import SbatchOption
from hpk.planning.job.sbatch_options import ALLOWED, REFUSED, SHORT

INVALID_ANNOTATION = "InvalidAnnotation"
_MAX_CHARS = 16 * 1024


def split_words(text: str, field: str) -> list[str]:
    """The words of an annotation, by a POSIX shell's quoting rules alone: nothing is expanded."""
    if len(text) > _MAX_CHARS:
        raise AdmissionError(INVALID_ANNOTATION, field, f"is longer than {_MAX_CHARS} characters")
    for char in text:
        if not " " <= char <= "~":
            raise AdmissionError(
                INVALID_ANNOTATION,
                field,
                f"contains {char!a}: only printable ASCII characters can be options",
                remedy="remove it",
            )
    try:
        return shlex.split(text, posix=True)
    except ValueError as error:
        raise AdmissionError(
            INVALID_ANNOTATION, field, f"cannot be split into words: {error}"
        ) from error


def parse_flags(text: str, field: str) -> tuple[SbatchOption, ...]:
    """The options of the annotation at ``field``, each name once, the last one winning.

    :raises AdmissionError: ``InvalidAnnotation``, naming the option.
    """
    words = split_words(text, field)
    options: dict[str, SbatchOption] = {}
    while words:
        for name, value in _take_option(words, field):
            options.pop(name, None)
            options[name] = SbatchOption(name=name, value=value, origin=field)
    return tuple(options.values())


def _take_option(words: list[str], field: str) -> list[tuple[str, str | None]]:
    word = words.pop(0)
    if word.startswith("--") and len(word) > 2:
        name, has_value, value = word[2:].partition("=")
        return [_check(name, value if has_value else None, words, field, f"--{name}")]
    if word.startswith("-") and len(word) > 1 and word != "--":
        return _take_short(word[1:], words, field)
    raise AdmissionError(
        INVALID_ANNOTATION,
        field,
        f"{word!r} is not an option",
        remedy="give sbatch options only; quote values that contain spaces",
    )


def _take_short(cluster: str, words: list[str], field: str) -> list[tuple[str, str | None]]:
    """``-n4``, ``-n 4``, and options without a value joined: ``-sO``."""
    found: list[tuple[str, str | None]] = []
    while cluster:
        letter, cluster = cluster[0], cluster[1:]
        name = SHORT.get(letter)
        if name is None:
            raise _unknown(f"-{letter}", field)
        option = ALLOWED.get(name)
        if option is not None and option.pattern is None:
            found.append((name, None))
            continue
        found.append(_check(name, cluster or None, words, field, f"-{letter}"))
        break
    return found


def _check(
    name: str, value: str | None, words: list[str], field: str, spelling: str
) -> tuple[str, str | None]:
    if name in REFUSED:
        raise AdmissionError(
            INVALID_ANNOTATION,
            field,
            f"sbatch option {spelling} is not for Pods: {REFUSED[name]}",
            remedy=f"remove {spelling}",
        )
    option = ALLOWED.get(name)
    if option is None:
        raise _unknown(spelling, field)
    if option.pattern is None:
        if value is not None:
            raise AdmissionError(
                INVALID_ANNOTATION, field, f"sbatch option {spelling} takes no value"
            )
        return name, None
    if value is None and not option.optional:
        if not words:
            raise AdmissionError(
                INVALID_ANNOTATION, field, f"sbatch option {spelling} lacks a value"
            )
        value = words.pop(0)
    if value is not None and option.pattern.fullmatch(value) is None:
        raise AdmissionError(
            INVALID_ANNOTATION,
            field,
            f"{value!r} is not a value of sbatch option {spelling}",
            remedy=f"write it like --{name}={option.example}",
        )
    return name, value


def _unknown(spelling: str, field: str) -> AdmissionError:
    near = difflib.get_close_matches(spelling.lstrip("-"), [*ALLOWED, *REFUSED], n=1, cutoff=0.6)
    remedy = f"did you mean --{near[0]}?" if near else "see sbatch(1) for the options there are"
    return AdmissionError(
        INVALID_ANNOTATION, field, f"unknown sbatch option {spelling}", remedy=remedy
    )
