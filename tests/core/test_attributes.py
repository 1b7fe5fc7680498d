"""Attributes: names, numbers and conditions go to and fro, and mistakes are told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciffusion.attributes import Attributes

DIGITS = Attributes(("digit", "speaker"), (("0", "7", "9"), ("lucas", "theo")))


def test_values_are_told_by_name_whatever_their_type() -> None:
    for value in (7, "7", np.int64(7), torch.tensor(7)):
        assert DIGITS.index("digit", value) == 1
    assert DIGITS.index("digit", None) == 3


def test_a_place_counts_only_where_no_name_is_a_number() -> None:
    assert DIGITS.index("speaker", 1) == 1
    with pytest.raises(ValueError, match=r"digit must be one of 0, 7, 9, got 1\."):
        DIGITS.index("digit", 1)
    for value in (2, -1, True, 1.0):
        with pytest.raises(ValueError, match="or a number below 2"):
            DIGITS.index("speaker", value)


def test_a_condition_says_again_what_was_asked() -> None:
    cond = DIGITS.condition({"digit": [9, None, 0]}, 3)
    assert cond["digit"].tolist() == [2, 3, 0]
    assert cond["speaker"].tolist() == [2, 2, 2]
    labels = DIGITS.labels(cond)
    assert labels["digit"].tolist() == ["9", "", "0"]
    again = DIGITS.condition(DIGITS.told({"digit": [9, 5, 0]}), 3)
    assert torch.equal(again["digit"], cond["digit"])
    turns = DIGITS.in_turn(4)
    assert turns == {"digit": ["0", "7", "9", "0"], "speaker": ["lucas", "theo"] * 2}


def test_mistakes_are_told_with_what_is_right() -> None:
    with pytest.raises(ValueError, match=r"knows digit, speaker\. Did you mean 'digit'"):
        DIGITS.condition({"digits": [1, 2]}, 3)
    with pytest.raises(ValueError, match="speaker has 2 values for 3 samples"):
        DIGITS.condition({"speaker": ["theo", "lucas"]}, 3)
    with pytest.raises(ValueError, match="Did you mean 'theo'"):
        DIGITS.index("speaker", "teo")
    with pytest.raises(ValueError, match="classes lists 1 attributes, but attributes names 2"):
        Attributes(("a", "b"), (("0",),))


def test_classes_are_found_in_the_labels_and_rows_name_them() -> None:
    labels: dict[str, list[object]] = {
        "digit": [9, 0, 10, 9],
        "speaker": ["theo", "theo", "lucas", "yweweler"],
        "take": [1] * 4,
    }
    found = Attributes(("digit", "speaker")).found(labels)
    assert found.classes == (("0", "9", "10"), ("lucas", "theo", "yweweler"))  # numbers by size
    rows = found.rows(labels)
    for name, told in found.labels(rows).items():
        assert told.tolist() == [str(v) for v in labels[name]]
    assert DIGITS.found(labels) == DIGITS
    with pytest.raises(ValueError, match="digit must be one of 0, 7, 9, got .*10"):
        DIGITS.rows(labels)
    with pytest.raises(
        ValueError, match="names 'accent'; labels of the data: digit, speaker, take"
    ):
        Attributes(("accent",)).found(labels)


def test_what_a_model_may_be_told_besides_is_named_and_not_read() -> None:
    asked = Attributes(("digit",), (("0", "1"),))
    cond = asked.condition({"digit": 1, "text": "a voice"}, 2, ("text",))
    assert {k: v.tolist() for k, v in cond.items()} == {"digit": [1, 1]}
    with pytest.raises(ValueError, match=r"'texts', but this model knows text\. Did you mean"):
        Attributes().condition({"texts": "a voice"}, 1, ("text",))
    with pytest.raises(ValueError, match="'text', but this model knows digit"):
        asked.condition({"text": "a voice"}, 1)
