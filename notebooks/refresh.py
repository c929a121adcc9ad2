"""Execute the notebooks and keep their outputs: ``python notebooks/refresh.py [number ...]``, all without a number.

What is kept holds nothing of this machine: no times, no paths, no versions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent
_SECONDS_PER_CELL = 900  # the first notebook that needs the small model trains it
_SECONDS_TO_START = 300  # on a machine that is busy


def executed(notebook: Path) -> NotebookNode:
    """The notebook with the outputs of a fresh kernel, started in the notebook's folder; the file stays as it is.

    Raises ``nbclient.exceptions.CellExecutionError`` for the first cell that fails.
    """
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with TemporaryDirectory() as sockets:
        client = NotebookClient(
            content,
            # Files in place of ports: nobody else can listen, and no network is needed.
            km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel"),
            timeout=_SECONDS_PER_CELL,
            startup_timeout=_SECONDS_TO_START,
            resources={"metadata": {"path": str(notebook.parent)}},
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute(cleanup_kc=True)  # or the kernel would live on
    content.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return content


def main(arguments: list[str]) -> None:
    """Execute the notebooks whose numbers are given, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", help="which: 1 2 3 4; all by default")
    chosen = parser.parse_args(arguments).numbers
    for notebook in sorted(NOTEBOOKS.glob("[0-9]_*.ipynb")):
        if not chosen or notebook.name[0] in chosen:
            nbformat.write(executed(notebook), notebook)
            sys.stdout.write(f"{notebook.name}: {notebook.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
