"""Finished runs in a file, and the pages that quote them."""

import math

from benchmarks import study as studies


def test_appended_lines_come_back_under_one_head(tmp_path):
    study = studies.Study(tmp_path / "new" / "runs.csv", ("env",), ("score",))
    assert study.rows() == []
    study.append([["A, or so", "1.5"]])
    study.append([["B", ""], ["C", "2"]])
    lines = [[*row.values()] for row in study.rows()]
    assert lines == [["A, or so", "1.5"], ["B", ""], ["C", "2"]]
    assert list(study.rows()[0]) == ["env", "score"]
    assert studies.numbers(study.rows(), "score") == [1.5, 2.0]


def test_only_missing_runs_are_computed(tmp_path, capsys):
    study = studies.Study(tmp_path / "runs.csv", ("x", "y"), ("distance",))
    study.append([[3, 4, "from an earlier call"]])
    items = [(3, 4), (5, 12), (8, 15)]
    assert study.missing(items) == items[1:]
    study.complete(distance, items, 2)
    study.complete(distance, items, 2)  # nothing is missing any more
    rows = {(row["x"], row["y"]): row["distance"] for row in study.rows()}
    assert rows == {("3", "4"): "from an earlier call", ("5", "12"): "13.0", ("8", "15"): "17.0"}
    assert len(study.rows()) == 3


def distance(item):
    return [math.hypot(*item)]


def test_several_runs_of_one_key_and_runs_that_begin_alike(tmp_path):
    study = studies.Study(tmp_path / "runs.csv", ("method", "seed"), ("score",))
    study.append([["ppo", 0, 1.0], ["ppo", 0, 2.0], ["trpo", 1, 3.0]])
    items = [("ppo", 0, steps) for steps in (10, 20, 30)] + [("trpo", 0, 10)]
    assert study.missing(items) == items[2:]
    assert study.missing([("ppo",), ("dpo",)]) == [("dpo",)]


def test_one_worker_is_this_process_and_no_result_is_not_stored(tmp_path):
    study = studies.Study(tmp_path / "runs.csv", ("x",), ("square",))
    study.complete(lambda item: [item[0] ** 2] if item[0] else None, [(3,), (0,), (2,)])
    assert [(row["x"], row["square"]) for row in study.rows()] == [("3", "9"), ("2", "4")]


def test_the_command_line_computes_prints_or_draws(monkeypatch, capsys, tmp_path):
    calls = []

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["script", *arguments])
        studies.main(
            "What it does.",
            studies.Study(tmp_path / "runs.csv", ("x", "y"), ("distance",)),
            distance,
            lambda seeds: [(seed, 0) for seed in range(seeds)],
            lambda: "the table",
            draw=lambda path: calls.append(str(path)),
            seeds=2,
            store=lambda item, values: calls.append((item, values)),
        )

    call("--table")
    call("--workers", "1")
    call("--figure", "out.png")
    assert calls == [((0, 0), [0.0]), ((1, 0), [1.0]), "out.png"]
    assert capsys.readouterr().out == "the table\nthe table\n"


def test_texts_of_numbers():
    assert studies.cell(float("nan")) == ""
    assert studies.cell(123456.7) == "123457"
    assert studies.iqm_with_interval([3.0], ".0f") == "3"
    assert studies.iqm_with_interval([1.0, 1.0], ".0f") == "1 [1, 1]"
    rows = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}, {"a": "1", "b": "y"}]
    assert studies.grouped(rows, "a") == {"1": [rows[0], rows[2]], "2": [rows[1]]}
    assert list(studies.grouped(rows, "a", "b")) == [("1", "x"), ("2", "y"), ("1", "y")]
