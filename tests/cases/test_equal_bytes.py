"""Equal trainings write equal bytes, whatever order Python's hashes give to sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import small_data as small
from rankloom_adapters.bundle import open_bundle


def other_hashes() -> dict[str, str]:
    """The environment of a process in which sets have another order than in this one."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    path = [str(Path(small.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(path)}
    hashes = [sys.executable, "-c", "print(hash('rankloom'))"]
    assert int(subprocess.check_output(hashes, env=environment)) != hash("rankloom")
    return environment


def test_a_training_in_another_process_gives_the_same_digest(
    small_data: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    """The other bundle was trained in this process, whose hashes are others."""
    out = tmp_path / "again"
    train = [sys.executable, "-W", "ignore", small.__file__, str(small_data), str(out)]
    subprocess.run(train, env=other_hashes(), check=True, stderr=subprocess.DEVNULL)
    assert open_bundle(out).digest == open_bundle(bundle_folder).digest
