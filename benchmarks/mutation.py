"""Mutation testing: how many small faults in the package are detected by its fast tests?

    python -m benchmarks.mutation                       # all modules; continues where it stopped
    python -m benchmarks.mutation networks rlhf/kl      # these modules
    python -m benchmarks.mutation --survivors networks  # only what survived last time
    python -m benchmarks.mutation --table               # the table of docs/results/tests.md again

mutmut (extra `mutation`; not on Windows) makes one change at a time: of a sign, a number, an
argument or a comparison. Each module is tested by the test file of the same name. A change that no
test detects survives. The tests run in a copy below results/mutation, where all verdicts are
stored. A module is run again if it, its tests or a helper of the tests has changed. The table is
written to benchmarks/results/mutation.csv, with a fingerprint of the measured source in each row.
--table also names the modules that have changed since. The survivors are written to
results/mutation/survivors.csv, with the columns of tests/mutants-equivalent.csv. That file lists
the changes that no test can detect, with the reason.

Changes that affect only messages are excluded: the arguments of exceptions, and the name of a value
that a check like `require_count` or `_levels` receives. mutmut excludes docstrings, annotations,
class bodies, module constants and decorated functions. A mutant also counts as killed if its tests
take 15 times as long as usual. On a busy machine this may have another cause, so the table counts
these mutants in a separate column.

Two modules with 278 mutants took 41 s of CPU time. All 32 modules take one or two hours on a
machine that does other work too.
"""

import argparse
import ast
import contextlib
import copy
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import study

ROOT = Path(__file__).parents[1]
WORK = ROOT / "results" / "mutation"
TABLE = ROOT / "benchmarks" / "results" / "mutation.csv"
EQUIVALENT = ROOT / "tests" / "mutants-equivalent.csv"
CHANGE = ["module", "function", "before", "after"]
COUNTS = ["mutants", "killed", "timed out", "survived", "equivalent"]
COLUMNS = ["module", *COUNTS, "source"]

MODULES = [
    *("distributions", "networks", "optimizers", "solvers", "advantages", "normalization"),
    *("batch", "policy", "critic_fit"),
    *(f"algorithms/{name}" for name in ("policy_gradient", "natural_gradient", "trpo", "ppo")),
    *(f"exact/{name}" for name in ("tabular", "lqr", "sequences")),
    *(
        "rlhf/language_model",
        "rlhf/kl",
        "rlhf/sft",
        "rlhf/preferences",
        "rlhf/votes",
        "rlhf/reward_model",
    ),
    *("rlhf/objective", "rlhf/align", "rlhf/dpo", "rlhf/best_of_n"),
    *("reward_transforms", "vector_env", "rollout", "checks"),
    *("support/history", "support/metrics", "support/serialization", "support/validation"),
]
# in addition to the test file of the same name
MORE_TESTS = {
    module: ["algorithms/all"]
    for module in MODULES
    if module.startswith("algorithms/") or module == "critic_fit"
} | {
    "support/validation": ["support/arguments"],
    "rollout": ["experiments/evaluation"],
    "vector_env": ["rollout"],
}

CONFIG = """
[mutmut]
source_paths = minirl
only_mutate = minirl/{module}.py
pytest_add_cli_args = -p
    no:cacheprovider
    --no-header
pytest_add_cli_args_test_selection = {tests}
timeout_constant = 2
timeout_multiplier = 15
use_git_change_detection = false
"""
# Functions of exact/sequences.py that check a value: their first argument is its name.
CHECKS = ("levels", "matrix", "matrices", "checked_table")
SURVIVED = {0, 5, 33}  # tests pass; no test selected; no test reaches the function
TIMED_OUT = {24, -24, 36, 152, 255}
MEMORY = 6 * 2**30  # bytes


def test_files(module: str) -> list[str]:
    """The test files that test a module, relative to the root."""
    names = [module, *MORE_TESTS.get(module, [])]
    return [str(Path("tests", name).with_name(f"test_{Path(name).name}.py")) for name in names]


class WithoutMessages(ast.NodeTransformer):
    """Remove the texts of messages, so that mutants that differ only in messages are equal."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc.args = []
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        name = node.func.id.lstrip("_") if isinstance(node.func, ast.Name) else ""
        if (name.startswith("require_") or name in CHECKS) and len(node.args) > 1:
            first = node.args[0]
            if isinstance(first, ast.JoinedStr | ast.Constant):  # the name of the value
                node.args[0] = ast.Constant(None)
        self.generic_visit(node)
        return node


def mutants_of(module: str) -> dict[str, tuple[str, str, str]]:
    """(function, line before, line after) of each mutant that changes more than a message."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    path = f"minirl/{module}.py"
    code = mutate_file_contents(path, Path(path).read_text()).code
    lines = code.split("\n")
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name
    }

    def text(name: str) -> list[str]:
        node = functions[name]
        plain = name.partition("__mutmut_")[0].rpartition("ǁ")[2].removeprefix("x_")
        source = lines[node.lineno - 1 : node.end_lineno]
        return [line.replace(name, plain).strip() for line in source]

    def meaning(name: str) -> str:
        node = copy.deepcopy(functions[name])
        node.name = ""
        return ast.dump(WithoutMessages().visit(node))

    mutants, meanings = {}, {}
    for name in functions:
        start = name.partition("__mutmut_")[0]
        original = start + "__mutmut_orig"
        if name == original:
            continue
        meanings.setdefault(original, meaning(original))
        if meaning(name) == meanings[original]:
            continue
        old, new = text(original), text(name)
        while old and new and old[0] == new[0]:
            old, new = old[1:], new[1:]
        while old and new and old[-1] == new[-1]:
            old, new = old[:-1], new[:-1]
        function = start.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        key = "minirl." + module.replace("/", ".") + "." + name
        mutants[key] = (function, " ".join(old), " ".join(new))
    return mutants


def fingerprint(*texts: str) -> str:
    """A short hash."""
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def source_of(module: str) -> str:
    """The fingerprint of a module without its docstrings, on which no verdict depends."""
    text = (ROOT / f"minirl/{module}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = text.replace(f'"""{ast.get_docstring(node, clean=False)}"""', "")
    return fingerprint(text)


def tests_of(module: str) -> str:
    """The fingerprint of a module's test files and of the helpers that test files share."""
    shared = (ROOT / "tests").glob("*.py")
    helpers = sorted(path for path in shared if not path.name.startswith("test_"))
    files = [*(ROOT / path for path in test_files(module)), *helpers]
    return fingerprint(*(path.read_text(encoding="utf-8") for path in files))


def limit_memory() -> None:
    """Limit the memory, because a mutant may make a list without end."""
    import resource  # not on Windows, where mutmut does not run either

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(module: str, only_survivors: bool) -> None:
    """Test the mutants of one module, and store the verdicts in the module's file."""
    record = WORK / (module.replace("/", ".") + ".json")
    source, tests = source_of(module), tests_of(module)
    old = json.loads(record.read_text()) if record.exists() else {"source": "", "tests": ""}
    if old["source"] != source:
        old = {"source": source, "tests": "", "verdicts": {}}
    if old["tests"] == tests and not only_survivors:
        return

    shutil.rmtree("mutants", ignore_errors=True)
    for folder in ("minirl", "tests"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    config = CONFIG.format(module=module, tests="\n    ".join(test_files(module)))
    Path("setup.cfg").write_text((ROOT / "setup.cfg").read_text() + config)

    mutants = mutants_of(module)
    names = [
        name for name in mutants if not only_survivors or old["verdicts"].get(name, 0) in SURVIVED
    ]
    if names:
        print(f"{module}: {len(names)} mutants", file=sys.stderr, flush=True)
        old["verdicts"] |= judge(module, names)
    if len(names) == len(mutants):  # otherwise some verdicts come from earlier tests
        old["tests"] = tests
    record.write_text(json.dumps(old | {"mutants": mutants}, indent=0))


def judge(module: str, names: list[str]) -> dict[str, int]:
    """The exit code of the module's tests under each of these mutants."""
    mutmut = Path(sys.executable).with_name("mutmut")
    outcome = subprocess.run(
        [mutmut, "run", "--max-children", "1", *names],
        capture_output=True,
        text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=limit_memory,
    )
    meta = Path(f"mutants/minirl/{module}.py.meta")
    verdicts = json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}
    if outcome.returncode or any(verdicts.get(name) is None for name in names):
        raise SystemExit(f"{module}: mutmut failed\n{outcome.stdout[-3000:]}{outcome.stderr}")
    return {name: verdicts[name] for name in names}


def tabulate(modules: list[str]) -> tuple[list[dict], list[dict]]:
    """One row per module that has been run, and one row per survivor that is not equivalent."""
    with EQUIVALENT.open(newline="") as file:
        equivalent = {tuple(row[key] for key in CHANGE) for row in csv.DictReader(file)}
    rows, survivors, used = [], [], set()
    for module in modules:
        record = WORK / (module.replace("/", ".") + ".json")
        if not record.exists():
            continue
        data = json.loads(record.read_text())
        row = {"module": module, **dict.fromkeys(COUNTS, 0), "source": data["source"]}
        row["mutants"] = len(data["mutants"])
        for name, change in data["mutants"].items():
            verdict, place = data["verdicts"][name], (module, *change)
            if verdict not in SURVIVED:
                row["killed"] += 1
                row["timed out"] += verdict in TIMED_OUT
            elif place in equivalent:
                row["equivalent"] += 1
                used.add(place)
            else:
                row["survived"] += 1
                survivors.append(dict(zip(CHANGE, place, strict=True)))
        rows.append(row)
    for place in sorted(equivalent - used):
        if any(row["module"] == place[0] for row in rows):
            print(f"listed as equivalent, but not a survivor: {place}", file=sys.stderr)
    return rows, survivors


def table(rows: list[dict]) -> str:
    """The Markdown table of docs/results/tests.md."""
    total = {key: sum(row[key] for row in rows) for key in COUNTS}
    lines = []
    for row in [*rows, {"module": "all"} | total]:
        non_equivalent = row["mutants"] - row["equivalent"]
        shares = [100 * row["killed"] / n if n else 100 for n in (row["mutants"], non_equivalent)]
        counts = [row[key] for key in COUNTS]
        lines.append([row["module"], *counts, *(f"{share:.1f}" for share in shares)])
    head = ["module", *COUNTS, "killed, %", "of the non-equivalent, %"]
    return study.markdown(head, lines, rule="---:").replace("---:", "---", 1)


def stored_rows() -> list[dict]:
    """The rows of the stored table."""
    rows = study.Study(TABLE, ("module",), (*COUNTS, "source")).rows()
    return [{key: int(row[key]) if key in COUNTS else row[key] for key in COLUMNS} for row in rows]


def changed_since(rows: list[dict]) -> list[str]:
    """The modules whose source differs from the one their rows were measured on."""
    return [row["module"] for row in rows if row["source"] != source_of(row["module"])]


def write_rows(path: Path, columns: list[str], rows: list[dict]) -> None:
    """Write these columns of the rows."""
    study.write(path, columns, [[row[name] for name in columns] for row in rows])


def main() -> None:
    """Run the mutants of the chosen modules, write the tables, and print the first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", default=MODULES, help="e.g. rlhf/kl (default: all)")
    parser.add_argument(
        "--survivors", action="store_true", help="only those that survived last time"
    )
    parser.add_argument("--table", action="store_true", help="only print the stored table")
    arguments = parser.parse_args()
    if unknown := set(arguments.modules) - set(MODULES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; modules are {', '.join(MODULES)}")
    if arguments.table:
        print(table(stored_rows()))
        if changed := changed_since(stored_rows()):
            print(f"modules changed since the run: {', '.join(changed)}", file=sys.stderr)
        return
    copy_of_the_tree = WORK / "tree"
    copy_of_the_tree.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(copy_of_the_tree):
        (copy_of_the_tree / "minirl").mkdir(exist_ok=True)  # mutmut requires it when it is imported
        for module in arguments.modules:
            run(module, arguments.survivors)
            rows, survivors = tabulate(MODULES)
            by_module = {row["module"]: row for row in [*stored_rows(), *rows]}
            rows = [by_module[name] for name in MODULES if name in by_module]
            write_rows(TABLE, COLUMNS, rows)
            write_rows(WORK / "survivors.csv", CHANGE, survivors)
    print(table(rows))


if __name__ == "__main__":
    main()
