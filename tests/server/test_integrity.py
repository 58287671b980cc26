"""What rots on the disk is found while nothing else is to be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankloom_adapters.bundle import CATALOGUE
from rankloom_adapters.store import BundleStore
from rankloom_server.config import EngineSettings, LoadingSettings
from rankloom_server.integrity import Integrity
from rankloom_server.revision_loader import RevisionLoader
from server.served_parts import ServedParts


async def test_a_rotten_bundle_is_named_in_the_log(
    served_folder: Path, parts: ServedParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = BundleStore(tmp_path / "bundles")
    loader = RevisionLoader(EngineSettings(dtype="float32"), LoadingSettings())
    served = await loader.load(served_folder)
    digest = store.put(served_folder)
    integrity = Integrity(loader, store)
    await integrity.check_next()
    assert "bundle_damaged" not in capsys.readouterr().err
    path = store.folder_of(digest) / CATALOGUE
    path.write_bytes(path.read_bytes()[::-1])
    await integrity.check_next()  # the first one again, after the last
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (line["event"], line["bundle_digest"]) == ("bundle_damaged", digest)
    assert CATALOGUE in line["reason"]
    store.remove(digest)
    await integrity.check_next()
    loader.pool.release(served.engine)
    with pytest.raises(StopIteration):  # it was given back already
        loader.pool.release(served.engine)
    await loader.close()
