"""Another build of the product, for a run side by side.

Mechanism: a worktree of the commit in a temporary folder; its process imports the product from there and
the benchmarks from here, so that both builds are asked the same question by the same code.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, until the block ends.

    Raises:
        RuntimeError: there is no such commit here, as in a copy without its history.
    """
    with tempfile.TemporaryDirectory(prefix="atemporal-build-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


class Builds:
    """The builds of one run; each is checked out once, when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        """Keep what is checked out until `stack` is closed."""
        self._stack = stack
        self._trees: dict[str, Path] = {}
        self._here: Path | None = None

    def path(self, commit: str | None) -> list[str]:
        """What `PYTHONPATH` is made of for this build; None is the build in this checkout."""
        if commit is None:
            return [str(ROOT)]
        if commit not in self._trees:
            self._trees[commit] = self._stack.enter_context(checked_out(commit))
        return [str(self._benchmarks()), str(self._trees[commit])]

    def _benchmarks(self) -> Path:
        """A folder with this checkout's benchmarks and nothing else of it."""
        if self._here is None:
            folder = tempfile.TemporaryDirectory(prefix="atemporal-benchmarks-")
            self._here = Path(self._stack.enter_context(folder))
            (self._here / "benchmarks").symlink_to(ROOT / "benchmarks")
        return self._here


def _git(*args: str) -> None:
    argv: Sequence[str] = ("git", *args)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
