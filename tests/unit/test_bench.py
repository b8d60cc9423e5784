"""How the benchmarks' figures become a document and pictures."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from tests.bench.document import BENCH, BY_HAND, SCALE, with_part
from tests.bench.scale.chart import chart
from tests.bench.scale.report import pictures
from tests.bench.scale.running import percentile
from tests.bench.scale.watching import free_mib


def test_each_program_writes_its_own_part_of_the_document() -> None:
    whole = with_part("", BENCH, "# Benchmarks")
    whole = with_part(f"{whole}\nhow to read them\n", SCALE, "## Many pods")
    whole = with_part(whole, BENCH, "# Benchmarks, again")
    assert whole == (
        f"# Benchmarks, again\n\n{SCALE}\n\n## Many pods\n\n{BY_HAND}\n\nhow to read them\n"
    )
    assert with_part(whole, SCALE, "## Many pods") == whole


def test_a_chart_is_svg_whatever_it_is_given() -> None:
    for series in (
        {"a <b> & c": [(100.0, 3.0), (10000.0, 12.5)], "d": [(1000.0, 0.0)]},
        {"one point": [(100.0, 0.0)]},
        {"none": [(100.0, 0.02)]},
    ):
        picture = ElementTree.fromstring(chart("a <title>", series, x_name="pods"))
        names = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert names[0] == "a <title>"
        assert set(series) <= set(names)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(200, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [100, 198, 200]
    assert percentile([3.0], 99) == 3.0
    assert pictures([]) == {}


def test_what_is_free_is_what_programs_may_still_have() -> None:
    assert free_mib("MemTotal: 8388608 kB\nMemFree: 1024 kB\nMemAvailable: 2097152 kB\n") == 2048
