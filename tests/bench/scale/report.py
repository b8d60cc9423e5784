"""The figures as Markdown and as pictures. Pure: from what was measured to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.scale.chart import chart
from tests.bench.scale.held import Held
from tests.bench.scale.running import Running, Short, Starts, median, percentile

_SHOWN = 8
_SLO_S = 5.0


def held_text(found: Sequence[Held]) -> str:
    """Of each count one column."""
    rows: list[tuple[str, list[str]]] = [
        ("created a second, eight at once", [f"{h.created_per_s:.0f}" for h in found]),
        ("**submitted a second**", [f"{h.submitted_per_s:.0f}" for h in found]),
        ("bare sbatch a second, one by one", [f"{h.bare_one_per_s:.0f}" for h in found]),
        ("bare sbatch a second, eight at once", [f"{h.bare_eight_per_s:.0f}" for h in found]),
        (
            "**submitted over bare, one by one**",
            [f"{h.submitted_per_s / h.bare_one_per_s:.2f}" for h in found],
        ),
        ("kubelet, MiB (KiB a pod)", [f"{h.kubelet_mib:.0f} ({h.kubelet_kib:.0f})" for h in found]),
        ("API server, MiB (KiB a pod)", [f"{h.api_mib:.0f} ({h.api_kib:.0f})" for h in found]),
        ("API server when all are deleted, MiB", [f"{h.api_after_mib:.0f}" for h in found]),
        ("kubelet idle, % of a processor", [f"{h.idle_share * 100:.1f}" for h in found]),
        ("API server idle, % of a processor", [f"{h.api_idle_share * 100:.1f}" for h in found]),
        ("kubelet restarted: next Pod submitted, s", [f"{h.restart_first_s:.1f}" for h in found]),
        ("kubelet restarted: quiet again, s", [f"{h.restart_s:.1f}" for h in found]),
        ("deleted a second", [f"{h.deleted_per_s:.0f}" for h in found]),
    ]
    return "\n".join(
        [
            "### Pods held in Slurm's queue, against as many bare jobs",
            "",
            *_table("pods", [f"{h.count:,}" for h in found], rows),
            "",
            "Processor milliseconds a pod, from its creation until the kubelet has nothing more to"
            " do, the dearest first:",
            "",
            *_table("pods", [f"{h.count:,}" for h in found], _costs([h.cpu_ms for h in found])),
            "",
            "And of its deletion:",
            "",
            *_table(
                "pods", [f"{h.count:,}" for h in found], _costs([h.delete_cpu_ms for h in found])
            ),
            "",
            "Requests to the API server for a pod, all clients' together; first until it is held,"
            " then of its deletion:",
            "",
            *_table("pods", [f"{h.count:,}" for h in found], _costs([h.requests for h in found])),
            "",
            *_table(
                "pods", [f"{h.count:,}" for h in found], _costs([h.delete_requests for h in found])
            ),
            "",
            "![what a held pod costs](scale-cost.svg)",
            "",
            "![how fast](scale-rate.svg)",
        ]
    )


def _table(corner: str, heads: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    return [
        f"| {corner} | {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads)}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows),
    ]


def _costs(found: Sequence[Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    names = sorted(found[-1], key=lambda name: -found[-1][name])[:_SHOWN]
    return [(name, [f"{cpu.get(name, 0.0):.1f}" for cpu in found]) for name in names]


def pictures(found: Sequence[Held]) -> dict[str, str]:
    """SVG by file name; none of nothing."""
    if not found:
        return {}
    names = [name for name, _ in _costs([h.cpu_ms for h in found])]
    costs = {name: [(float(h.count), h.cpu_ms.get(name, 0.0)) for h in found] for name in names}
    rates = {
        "pods created": [(float(h.count), h.created_per_s) for h in found],
        "pods submitted": [(float(h.count), h.submitted_per_s) for h in found],
        "pods deleted": [(float(h.count), h.deleted_per_s) for h in found],
        "sbatch, one by one": [(float(h.count), h.bare_one_per_s) for h in found],
        "sbatch, eight at once": [(float(h.count), h.bare_eight_per_s) for h in found],
    }
    return {
        "scale-cost.svg": chart("processor ms a held pod", costs, x_name="pods"),
        "scale-rate.svg": chart("a second", rates, x_name="pods"),
    }


def running_text(found: Running) -> str:
    """A paragraph."""
    top = ", ".join(f"{name} {ms:.0f}" for name, ms in list(found.cpu_ms.items())[:4])
    return (
        f"### {found.count} pods that run at once\n\n"
        f"All running after {found.started_s:.1f} s. A running pod takes {found.kubelet_kib:.0f} "
        f"KiB of the kubelet and {found.api_kib:.0f} KiB of the API server; the kubelet takes "
        f"{found.idle_share * 100:.1f} % of a processor while nothing happens. Processor "
        f"milliseconds a start: {top}."
    )


def short_text(found: Short) -> str:
    """Both ways, and the ratios."""
    return "\n".join(
        [
            f"### {found.count} containers of `true`",
            "",
            "| | seconds | processor seconds each, of everything in the lab |",
            "|---|---|---|",
            f"| bare sbatch that calls Apptainer | {found.bare_seconds:.1f} |"
            f" {found.bare_cpu_s:.2f} |",
            f"| a Job's pods, 50 at a time | {found.seconds:.1f} | {found.cpu_s:.2f} |",
            "",
            f"**Ratio: {found.seconds / found.bare_seconds:.2f} in time, "
            f"{found.cpu_s / found.bare_cpu_s:.2f} in processor seconds.**",
        ]
    )


def starts_text(found: Starts) -> str:
    """Percentiles, against Kubernetes' objective."""
    p99 = percentile(found.pod, 99)
    rows = [
        ("pod: created to seen running", found.pod),
        ("of it Slurm's own wait", found.pod_slurm),
        ("bare sbatch to the container's first instruction", found.bare),
        ("of it Slurm's own wait", found.bare_slurm),
    ]
    lines = [
        f"| {name} | {median(values):.2f} | {percentile(values, 90):.2f} "
        f"| {percentile(values, 99):.2f} | {max(values):.2f} |"
        for name, values in rows
    ]
    verdict = "met" if p99 <= _SLO_S else "missed"
    return "\n".join(
        [
            f"### Kubernetes' objective for the start of pods, over {len(found.pod)} of them",
            "",
            "From a Pod's creation until a watch shows all its containers running, its image"
            " there, no init containers; pods and bare jobs one after the other, in turn; seconds.",
            "",
            "| | median | p90 | p99 | max |",
            "|---|---|---|---|---|",
            *lines,
            "",
            f"**p99 {p99:.2f} s: the objective of {_SLO_S:g} s is {verdict}; "
            f"{p99 / percentile(found.bare, 99):.2f} times bare sbatch's.**",
        ]
    )
