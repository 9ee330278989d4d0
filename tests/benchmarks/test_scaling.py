"""The page on scaling shows the stored file; what the script computes from it."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(load):
    return load("scaling")


def test_quartiles_and_ratios_within_a_turn(script):
    seconds = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 12.0]]) * 1e-6
    ours, bound = script.measurements("w", (64, 8, 0, 0), ("minirl", "bound"), seconds)
    assert (ours.contender, ours.width, ours.rows) == ("minirl", 64, 8)
    np.testing.assert_allclose([ours.lower, ours.median, ours.upper], [1.5, 2, 2.5])
    assert ours.ratio_lower == ours.ratio == ours.ratio_upper == 1
    np.testing.assert_allclose([bound.lower, bound.median, bound.upper], [2, 2, 7])
    # of 2, 1 and 4: not the ratio of the medians, which is 1
    np.testing.assert_allclose([bound.ratio_lower, bound.ratio, bound.ratio_upper], [1.5, 2, 3])


def test_the_file_comes_back_as_it_was_written(script):
    text = script.RESULTS.read_text()
    assert script.to_csv(script.from_csv(text)) == text


def test_contexts_are_those_of_the_task(script):
    for words, length in [(2, 1), (3, 4)]:
        task = script.token_task(words, length)
        line = script.Measurement("w", 0, 0, words, length, "minirl", *[0.0] * 6)
        assert script.contexts(line) == task.num_observations - 1


def test_the_page_holds_the_tables_of_the_stored_file(script):
    found = script.from_csv(script.RESULTS.read_text())
    page = (ROOT / "docs" / "speed-scaling.md").read_text()
    for table in script.tables(found):
        assert table in page
