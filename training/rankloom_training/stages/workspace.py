"""A folder of finished stages, which later runs reuse."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rankloom_training.stages.fingerprint import Fingerprint

MARK = "run.json"
_LAYOUT = '{"layout": 2}'


class WorkspaceError(ValueError):
    """The folder for unfinished work holds other files, or another process works in it."""


class Workspace:
    """A folder of finished stages.

    A stage is written to a temporary folder and renamed when it is complete, so a killed run
    loses only the stage that it was in, or
    the minutes since its last checkpoint. Beside it lies what it was made from, and the digest of
    its files: a stage whose files have changed is made again.
    """

    def __init__(self, folder: Path) -> None:
        """Changes nothing on disk. Raises WorkspaceError if the folder holds other files."""
        self.folder = folder
        if folder.exists() and not (folder / MARK).is_file() and any(folder.iterdir()):
            raise WorkspaceError(
                f"{folder}: the folder for unfinished work holds other files; "
                f"move them away, or write the bundle elsewhere"
            )

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Makes the folder, which is this process's alone while the block runs.

        One of another layout is cleared. Raises WorkspaceError where another process works in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder):
            mark = self.folder / MARK
            if not mark.is_file() or mark.read_text() != _LAYOUT:
                for path in self.folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                _write_whole(mark, _LAYOUT)
            yield

    def folder_of(self, stage: str) -> Path:
        return self.folder / stage

    def digest(self, stage: str) -> str | None:
        """Digest of the files of a finished stage; None if it is unfinished or was changed."""
        folder, kept = self.folder_of(stage), self._record(stage)
        if not folder.is_dir() or "files" not in kept:
            return None
        found = files_digest(folder)
        return found if found == kept["files"] else None

    def made_from(self, stage: str) -> dict[str, object] | None:
        """What a stage was made from, as ``Fingerprint.to_json`` gives it; None if unknown."""
        kept = self._record(stage).get("made_from")
        return kept if isinstance(kept, dict) else None

    def make(self, stage: str, made_from: Fingerprint, fill: Callable[[Path, Path], None]) -> str:
        """Calls ``fill`` with an empty folder, keeps what it wrote and returns its digest.

        The second folder is for checkpoints. It may hold those of a killed run that made the
        stage from the same.
        """
        done, begun = self.folder_of(stage), self.folder / f"{stage}.begun"
        for folder in (begun, done):
            shutil.rmtree(folder, ignore_errors=True)
        begun.mkdir()
        unfinished = self.unfinished(stage, made_from)
        self._remove_unfinished(stage, but=unfinished)
        try:
            fill(begun, unfinished)
            record = {"files": files_digest(begun), "made_from": made_from.to_json()}
            _write_whole(self._record_file(stage), json.dumps(record, sort_keys=True, indent=1))
            begun.rename(done)
        except BaseException:  # also on Ctrl-C: leave nothing half-written
            shutil.rmtree(begun, ignore_errors=True)
            raise
        self._remove_unfinished(stage, but=None)
        return str(record["files"])

    def unfinished(self, stage: str, made_from: Fingerprint) -> Path:
        """The folder of checkpoints of a stage that is made from these."""
        text = json.dumps(made_from.to_json(), sort_keys=True)
        return self.folder / f"{stage}.unfinished-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def _remove_unfinished(self, stage: str, *, but: Path | None) -> None:
        for folder in self.folder.glob(f"{stage}.unfinished-*"):
            if folder != but:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Deletes the folder. Move the result away first."""
        shutil.rmtree(self.folder)

    def _record_file(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def _record(self, stage: str) -> dict[str, object]:
        try:
            found = json.loads(self._record_file(stage).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises WorkspaceError. File systems without locks keep nobody out."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        _lock(opened, folder)
        yield
    finally:
        os.close(opened)


def _lock(opened: int, folder: Path) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        advice = "wait for it, or write elsewhere"
        raise WorkspaceError(f"{folder}: another process works in it; {advice}") from error
    except OSError:
        pass  # a file system without locks


def files_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files."""
    return _digest(folder, folder.rglob("*"))


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return total.hexdigest()


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)
