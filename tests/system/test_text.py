"""Figures as text that any program can read."""

from util.system.text import json_text


def test_json_has_no_nan():
    assert (
        json_text({"a": [1.5, float("nan")], "b": (float("inf"), True, None)}, None)
        == '{"a": [1.5, null], "b": [null, true, null]}'
    )
