"""Run notebooks from clean kernels, each on one core.

    python notebooks/execute.py                  # all of them, solutions included; keeps no outputs
    python notebooks/execute.py --store 03 04    # those whose file name holds 03 or 04, in place

Fails if a cell raises, prints a warning, takes too long or kills its kernel.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm
from traitlets.config import Config

from minirl.support.serialization import write_text

HERE = Path(__file__).parent
CPU_SECONDS = "import os; round(sum(os.times()[:4]), 1)"  # of the kernel and its children
ONE_CORE = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")
}


def execute(path: Path) -> tuple[nbformat.NotebookNode, float]:
    """The notebook with fresh outputs, and the CPU seconds that it took."""
    notebook = nbformat.read(path, as_version=4)
    cells = list(notebook.cells)
    notebook.cells.append(nbformat.v4.new_code_cell(CPU_SECONDS))
    with tempfile.TemporaryDirectory() as sockets:
        NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=600,
            record_timing=False,
            coalesce_streams=True,
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
    seconds = float(notebook.cells.pop().outputs[0].data["text/plain"])
    notebook.cells = cells
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook, seconds


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """Whatever a cell wrote to stderr: warnings, above all."""
    return [
        f"cell {cell.execution_count} printed to stderr: {output.text.strip()}"
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of file names (default: all)")
    parser.add_argument("--store", action="store_true", help="write the outputs into the files")
    parser.add_argument("--workers", type=int, default=2, help="notebooks at a time")
    arguments = parser.parse_args()
    os.environ.update(ONE_CORE)
    paths = [
        path
        for path in sorted([*HERE.glob("*.ipynb"), *HERE.glob("solutions/*.ipynb")])
        if not arguments.names
        or any(name in str(path.relative_to(HERE)) for name in arguments.names)
    ]
    if not paths:
        parser.error(f"no notebook's name holds any of {', '.join(arguments.names)}")
    failed, total = 0, 0.0

    def attempt(path: Path) -> tuple[Path, float, list[str]]:
        try:
            notebook, seconds = execute(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            return path, 0.0, [str(error)]
        found = complaints(notebook)
        if arguments.store and not found:
            write_text(path, nbformat.writes(notebook) + "\n")
        return path, seconds, found

    with ThreadPoolExecutor(arguments.workers) as pool:
        for path, seconds, found in tqdm(
            pool.map(attempt, paths), total=len(paths), unit="notebook"
        ):
            tqdm.write(f"{path.relative_to(HERE)}: {seconds:.1f} s of CPU")
            for complaint in found:
                tqdm.write(complaint)
            failed += bool(found)
            total += seconds
    print(f"{len(paths)} notebooks, {failed} failed, {total:.0f} s of CPU in all")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
