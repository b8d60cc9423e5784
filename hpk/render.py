"""PodPlan to the text of its sbatch script. Decides nothing."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import jinja2

from hpk.model.errors import ParseError
from hpk.model.layout import AttemptLayout
from hpk.model.plan import PodPlan, SbatchOption

_TEMPLATES = Path(__file__).parents[1] / "slurm_templates"
"""Beside hpk/, in a checkout as in an installation: the wheel carries them there."""
_PLAIN = "/_.,:=@%+-[]*&|()"
_UNWRITABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, surrogates, line and paragraph separators."""
_MAX_DIRECTIVE_BYTES = 4096
"""sbatch copies an option into a buffer of BUFSIZ (8192) bytes."""


def render_script(
    plan: PodPlan, *, job_name: str, layout: AttemptLayout, python: str, supervisor: str
) -> str:
    """The batch script of one attempt.

    :param job_name: ``namespace/pod@nonce``.
    :param python: absolute path of the interpreter on the compute node.
    :param supervisor: absolute path of the zipapp.
    :raises ParseError: a value that cannot stand in a ``#SBATCH`` line.
    """
    template = _ENVIRONMENT.get_template("batch.sh.j2")
    return template.render(
        options=script_options(plan, job_name=job_name, layout=layout),
        python=python,
        supervisor=supervisor,
        attempt_dir=layout.root,
    )


def script_options(
    plan: PodPlan, *, job_name: str, layout: AttemptLayout
) -> tuple[SbatchOption, ...]:
    """The options of the script's ``#SBATCH`` lines, in their order, each with its origin."""
    output = file_pattern(layout.job_output)
    return (
        SbatchOption("job-name", job_name, "the Pod, and a nonce for this attempt"),
        SbatchOption("partition", plan.partition, "the virtual node the Pod is bound to"),
        SbatchOption("output", output, "the supervisor's own log; containers have theirs"),
        SbatchOption("open-mode", "append", "the supervisor's own log"),
        SbatchOption("chdir", "/", "a container's directory is workingDir"),
        SbatchOption("export", "ALL", "the few variables the kubelet gives sbatch"),
        *plan.options,
    )


def render_probe_script(
    options: Sequence[SbatchOption], *, python: str, probe: str, directory: str
) -> str:
    """The batch script of `hpk doctor`'s job.

    :param python: absolute path of HPK's interpreter, which the node may not have.
    :param probe: absolute path of the program; ``directory`` is its argument.
    :raises ParseError: a value that cannot stand in a ``#SBATCH`` line.
    """
    template = _ENVIRONMENT.get_template("doctor.sh.j2")
    return template.render(options=options, python=python, probe=probe, directory=directory)


def file_pattern(path: str) -> str:
    """A path as sbatch's FILENAME PATTERN (sbatch(1)) that stands for this path alone.

    A backslash anywhere switches off what "%" does and must itself be doubled.
    """
    if "\\" in path:
        return path.replace("\\", "\\\\")
    return path.replace("%", "%%")


def directive(option: SbatchOption) -> str:
    """One option as the rest of a ``#SBATCH`` line.

    sbatch ends an option at white space or "#" outside quotes and takes what follows a backslash
    as it is, inside quotes too. Nothing can quote a newline, so control characters are refused.

    :raises ParseError: a value that no directive can hold.
    """
    if option.value is None:
        return f"--{option.name}"
    if any(unicodedata.category(char) in _UNWRITABLE for char in option.value):
        raise ParseError(f"sbatch option --{option.name}: control characters cannot be written")
    text = f"--{option.name}={_quoted(option.value)}"
    if len(text.encode()) > _MAX_DIRECTIVE_BYTES:
        raise ParseError(f"sbatch option --{option.name} is longer than sbatch reads")
    return text


def _quoted(value: str) -> str:
    if value and all(char.isascii() and (char.isalnum() or char in _PLAIN) for char in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701  shell and directives have filters of their own
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["sh"] = shlex.quote
_ENVIRONMENT.filters["directive"] = directive
