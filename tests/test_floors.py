"""The constraints of `make test-floors` against the text of setup.cfg."""

from pathlib import Path

from floors import lowest_versions

SETUP = Path(__file__).parents[1] / "setup.cfg"


def test_every_installed_requirement_is_held_to_its_lowest_version():
    lines = SETUP.read_text().split("install_requires =\n")[1].split("\n\n")[0].split()
    assert len(lines) >= 6
    found = lowest_versions(SETUP)
    for line in lines:
        name, version = line.split(">=")
        assert found[name] == version
    assert {"pytest", "pytest-xdist", "hypothesis", "distributed"} <= found.keys()


def test_only_lower_bounds_are_taken_and_extras_are_left_out(tmp_path):
    (tmp_path / "setup.cfg").write_text(
        "[options]\ninstall_requires =\n    one>=1.2\n    two-b>=3\n"
        "[options.extras_require]\ntest =\n    # a comment>=9\n    three==4\n    five\n"
        "    one[extra]>=2\n    six>=7.8.9\n"
    )
    assert lowest_versions(tmp_path / "setup.cfg") == {"one": "1.2", "two-b": "3", "six": "7.8.9"}
