"""Long work in stages. A finished stage is kept, and reused by the next run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rankloom_training.progress import Progress

RUN_FILE = "run.json"


class WorkspaceError(ValueError):
    """The folder for unfinished work holds other files."""


class Workspace:
    """A folder of finished stages. Other inputs (``made_from``) clear it.

    A stage is written to a temporary folder and renamed when it is complete, so a killed
    run loses only the stage that it was in. A finished stage whose files have changed is
    made again. Raises WorkspaceError if the folder holds other files.
    """

    def __init__(self, folder: Path, made_from: Mapping[str, object], progress: Progress) -> None:
        self.folder = folder
        self._progress = progress
        text = json.dumps(made_from, sort_keys=True, indent=1)
        _refuse_foreign(folder)
        if not _holds(folder / RUN_FILE, text):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _write_whole(folder / RUN_FILE, text)

    def stage(self, name: str, make: Callable[[Path], None]) -> Path:
        """Returns the stage's folder. Calls ``make`` to fill it unless an earlier run did."""
        done, begun = self.folder / name, self.folder / f"{name}.begun"
        with self._progress.stage(name) as shown:
            if self._is_whole(name):
                shown.note("kept from an earlier run")
                return done
            for folder in (begun, done):
                shutil.rmtree(folder, ignore_errors=True)
            begun.mkdir()
            try:
                make(begun)
                _write_whole(self._seal(name), _digest(begun, begun.rglob("*")))
                begun.rename(done)
            except BaseException:  # also on Ctrl-C: leave nothing half-written
                shutil.rmtree(begun, ignore_errors=True)
                raise
        return done

    def _is_whole(self, name: str) -> bool:
        """Whether the stage was finished and its files are unchanged."""
        done = self.folder / name
        return done.is_dir() and _holds(self._seal(name), _digest(done, done.rglob("*")))

    def _seal(self, name: str) -> Path:
        return self.folder / f"{name}.sha256"

    def remove(self) -> None:
        """Deletes the folder. Move the result away first."""
        shutil.rmtree(self.folder)


def digest_of(files: Sequence[Path]) -> str:
    """SHA-256 over contents of files, and their names within the folder that holds them all."""
    return _digest(Path(os.path.commonpath([file.parent for file in files])), files)


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return total.hexdigest()


def _refuse_foreign(folder: Path) -> None:
    """Another run would delete the folder, so it must be a workspace."""
    if folder.exists() and not (folder / RUN_FILE).is_file() and any(folder.iterdir()):
        raise WorkspaceError(
            f"{folder}: the folder for unfinished work holds other files; "
            f"move them away, or write the bundle elsewhere"
        )


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)
