"""A Pod's fields as text, as upstream writes them."""

from __future__ import annotations

import pytest

from hpk.planning.environment.downward import format_map, go_quote, metadata_field


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\x00\x1b\x7f", '"\\x00\\x1b\\x7f"'),
        ("é中😀", '"é中😀"'),
        ("\u00a0\u200b\U000e0001", '"\\u00a0\\u200b\\U000e0001"'),
    ],
)
def test_go_quoting(text: str, quoted: str) -> None:
    assert go_quote(text) == quoted


def test_maps_are_sorted() -> None:
    assert format_map({"b": "2", "a": "1\n"}) == 'a="1\\n"\nb="2"'
    assert format_map({}) == ""


def test_metadata_fields() -> None:
    pod = {"metadata": {"labels": {"a": "1"}, "annotations": {"x'y']": "2"}}}
    assert metadata_field(pod, "metadata.labels['a']") == "1"
    assert metadata_field(pod, "metadata.labels['no']") == ""
    assert metadata_field(pod, "metadata.annotations['x'y']']") == "2"
    assert metadata_field(pod, "metadata.labels") == 'a="1"'
