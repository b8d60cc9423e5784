"""The annotations ``mpi-flags`` and ``mpi``: how the main container's command becomes ranks.

Takes srun's own options and mpiexec's common ones, mapped to srun's; everything else is refused by
name, because an option that is silently dropped changes where ranks run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.model.plan import MpiPlan, SbatchOption
from hpk.planning.job.annotations import Annotation
from hpk.planning.job.flags import INVALID_ANNOTATION, split_words
from hpk.planning.job.launcher_options import (
    HINTS,
    MPIEXEC_SHORT,
    OPTIONS,
    SHORT,
    LauncherOption,
    Settings,
)
from hpk.planning.job.site import SiteSettings

_TRUE = ("true", "yes", "1", "")
_FALSE = ("false", "no", "0")
_IMPLIED = ("nodes", "ntasks", "ntasks-per-node", "cpus-per-task")


@dataclass(frozen=True, slots=True, kw_only=True)
class MpiRequest:
    """What the annotations ask for.

    :param plan: None for a Pod that is no MPI run.
    :param implied: sbatch options the launcher's options imply where the flags do not say.
    :param ranks: how many ranks they ask for, if they do.
    :param overcommit: whether ranks may share CPUs.
    :param field: the annotation's path, for messages.
    """

    plan: MpiPlan | None = None
    implied: tuple[SbatchOption, ...] = ()
    ranks: int | None = None
    overcommit: bool = False
    field: str = ""


def plan_mpi(annotations: Mapping[str, Annotation], site: SiteSettings) -> MpiRequest:
    """The MPI run a Pod asks for.

    :raises AdmissionError: ``InvalidAnnotation`` for what cannot be honoured.
    """
    named = annotations.get("mpi")
    launcher = None if named is None else _launcher(named.value.strip(), named.field, site)
    flags = annotations.get("mpi-flags")
    if flags is None or flags.value.strip().lower() in _FALSE:
        if named is not None and launcher != "none":
            raise AdmissionError(
                INVALID_ANNOTATION,
                named.field,
                "names a launcher, but nothing asks for an MPI run",
                remedy='add the annotation mpi-flags: "true"',
            )
        return MpiRequest()
    if flags.value.strip().lower() in _TRUE:
        options: dict[str, str | None] = {}
    else:
        options = parse_launcher_options(flags.value, flags.field)
    asked = options.pop("mpi", None)
    if asked is not None:
        launcher = _launcher(asked, flags.field, site)
    if launcher == "none":
        return MpiRequest()
    return _request(launcher or site.launchers[0], options, flags.field)


def _request(launcher: str, options: Mapping[str, str | None], field: str) -> MpiRequest:
    argv = (f"--{name}" if text is None else f"--{name}={text}" for name, text in options.items())
    ranks = options.get("ntasks")
    return MpiRequest(
        plan=MpiPlan(launcher, tuple(argv)),
        implied=tuple(
            SbatchOption(name, options[name], field) for name in _IMPLIED if name in options
        ),
        ranks=None if ranks is None else int(ranks),
        overcommit="overcommit" in options,
        field=field,
    )


def _launcher(name: str, field: str, site: SiteSettings) -> str:
    """Slurm's own names carry a version (``pmix_v4``); which one is the site's business."""
    plain = re.sub(r"_v[0-9]+$", "", name)
    if plain == "none" or plain in site.launchers:
        return plain
    known = ", ".join((*site.launchers, "none"))
    raise AdmissionError(
        INVALID_ANNOTATION,
        field,
        f"no MPI launcher {name!r} here",
        remedy=f"the launchers are {known}",
    )


def parse_launcher_options(text: str, field: str) -> dict[str, str | None]:
    """srun's long options in the order given, from srun's or mpiexec's spelling."""
    words = split_words(text, field)
    short = SHORT
    if words and words[0] in ("srun", "mpiexec", "mpirun"):
        short = SHORT if words.pop(0) == "srun" else MPIEXEC_SHORT
    options: dict[str, str | None] = {}
    while words:
        spelling, option, value = _take_option(words, field, short)
        if not option.has_value:
            if value is not None:
                raise _invalid(field, f"launcher option {spelling} takes no value")
            settings: Settings | None = option.settings
        else:
            if value is None:
                if not words:
                    raise _invalid(field, f"launcher option {spelling} lacks a value")
                value = words.pop(0)
            settings = option.convert(value)
        if settings is None:
            raise _invalid(
                field,
                f"{value!r} is not a value of launcher option {spelling} srun can honour",
                remedy="docs/mpi.md lists what is",
            )
        for name, converted in settings:
            options.pop(name, None)
            options[name] = converted
    return options


def _take_option(
    words: list[str], field: str, short: Mapping[str, str]
) -> tuple[str, LauncherOption, str | None]:
    """The next word as (how it is spelled, what it is, its joined value)."""
    word = words.pop(0)
    spelling, has_value, value = word.partition("=")
    name = spelling.lstrip("-")
    if word == ":":
        raise _invalid(field, "several programs (':') are not supported", remedy=HINTS[word])
    if not word.startswith("-") or not name:
        raise _invalid(
            field,
            f"{word!r} is not a launcher option",
            remedy="the program goes into the container's command",
        )
    joined = value if has_value else None
    if not word.startswith("--") and name[0] in short and name[1:].isdigit():
        return spelling, OPTIONS[short[name[0]]], name[1:]
    name = short.get(name, name)
    option = OPTIONS.get(name)
    if option is None:
        remedy = HINTS.get(name, "docs/mpi.md lists what is supported")
        raise _invalid(field, f"launcher option {spelling} is not supported", remedy=remedy)
    return spelling, option, joined


def _invalid(field: str, message: str, *, remedy: str = "") -> AdmissionError:
    return AdmissionError(INVALID_ANNOTATION, field, message, remedy=remedy)
