"""The versions that a run depends on; a worker with other versions makes no row."""

from __future__ import annotations

import pickle
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

import handloom
from handloom.errors import ConfigError, StoreError
from handloom.models.hub.fingerprints import file_digest, files_digest, sources_digest
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Resources, Settings
from handloom.stages.versions import OWN, check_same, model_versions, packages_of
from handloom.workers.actors import DecodeWorker, GroupWorker
from handloom.workers.ledger import start_ledger
from handloom.workers.place import here
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import Shard, ShardResult

PLAIN = model_versions(Settings())
CLIP = Clip("test:v:0-1000", "test", "v", "v.mp4", 0.0, 1.0)


def test_only_what_the_settings_use_counts():
    plain = set(packages_of(Settings()))
    assert {"numpy", "scipy", "av", "decord", "mediapipe", "pycolmap", "ai-edge-litert"} == plain
    assert plain - set(packages_of(Settings(camera={"poses": "given"}))) == {"pycolmap"}
    assert plain - set(packages_of(Settings(hands={"backend": "mediapipe"}))) == {"ai-edge-litert"}
    assert plain ^ set(packages_of(Settings(hands={"device": "cuda"}))) == {"ai-edge-litert", "torch"}
    assert set(packages_of(Settings(tracks={"tracker": "cotracker3"}))) - plain == {"torch"}
    learned = Settings(depth={"provider": "transformers"})
    assert set(packages_of(learned)) - plain == {"torch", "transformers", "pillow"}
    assert {"numpy": version("numpy"), "pyav": version("av")}.items() <= PLAIN.items()
    assert PLAIN["opencv"]


def test_a_step_that_makes_the_same_rows_keeps_the_text_of_its_version():
    """It is hashed into the run key: a text that was only reworded refuses every database that exists."""
    assert {name: PLAIN[name] for name in OWN} == {
        "decode": "numbered packets, pictures as players show them 1",
        "arithmetic": "one thread, OpenCV without IPP 1",
        "hands": "whole-clip handedness 2, offline 6",
        "hand_fit": "kinematic hand 1",
        "cuts": "cuts 1",
        "corners": "corners-klt 5",
        "camera_path": "corners, lens, parts, incremental bundle adjustment 6",
        "tracks": "recover 3, lk-forward-backward 1",
        "lift": "triangulation, hands, maps 1",
        "row": "2",
    }


def test_a_package_that_is_not_installed_is_named():
    def version_of(package: str) -> str:
        if package == "decord":
            raise PackageNotFoundError(package)
        return version(package)

    with pytest.raises(ConfigError, match="need decord, which is not installed"):
        model_versions(Settings(), version_of)


def test_given_maps_are_identified_by_their_contents(tmp_path):
    """A copy is equal; a changed map of the same size, an added file and a removed one are not."""
    folder, copy = tmp_path / "maps", tmp_path / "copy"
    (folder / "kitchen").mkdir(parents=True)
    maps = np.random.default_rng(0).uniform(0.3, 2.0, (2, 400, 600)).astype(np.float32)
    np.savez(folder / "kitchen" / "v.npz", frame_s=np.arange(2.0), depth_m=maps)
    (folder / "notes.txt").write_text("no map")

    def identity(root: Path) -> str:
        settings = Settings(depth={"provider": "given", "folder": str(root)})
        return model_versions(settings)["depth_folder"]

    first = identity(folder)
    assert first.startswith("1 files ")
    shutil.copytree(folder, copy, copy_function=shutil.copy)
    (copy / "notes.txt").write_text("still no map")
    assert identity(copy) == first
    size = (copy / "kitchen" / "v.npz").stat().st_size
    maps[0, 0, 0] += 1
    np.savez(copy / "kitchen" / "v.npz", frame_s=np.arange(2.0), depth_m=maps)
    assert (copy / "kitchen" / "v.npz").stat().st_size == size
    assert identity(copy) != first
    shutil.copy(folder / "kitchen" / "v.npz", folder / "w.npz")
    assert identity(folder) != first


def test_digests_follow_the_bytes_and_come_from_the_cache(tmp_path):
    cache, file = str(tmp_path / "cache"), tmp_path / "model" / "a.bin"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    first = file_digest(file, cache)
    kept = next((tmp_path / "cache").iterdir())
    kept.write_text("0123456789abcdef")
    assert file_digest(file, cache) == "0123456789abcdef"  # not read again
    kept.write_text("cut")
    assert file_digest(file, cache) == first
    file.write_bytes(b"Weights")
    assert file_digest(file, cache) != first
    (tmp_path / "no-folder").write_text("")
    assert file_digest(file, str(tmp_path / "no-folder")) == file_digest(file, cache)
    whole = files_digest(file.parent, ["*"], cache)
    file.rename(file.with_name("b.bin"))
    assert files_digest(file.parent, ["*"], cache) != whole


def test_a_changed_build_of_the_same_version_is_detected(tmp_path):
    package = Path(handloom.__file__).parent
    other = tmp_path / "handloom"
    for path in ("errors.py", "models/devices.py"):
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / path, other / path)
    same = tmp_path / "same"
    shutil.copytree(other, same)
    assert sources_digest(other) == sources_digest(same)
    changed = tmp_path / "changed"
    shutil.copytree(other, changed)
    (changed / "models" / "devices.py").write_text("# changed\n")
    assert sources_digest(changed) != sources_digest(other)
    assert sources_digest(package) in PLAIN["handloom"]
    theirs = PLAIN | {"handloom": f"{handloom.__version__}, sources 0"}
    with pytest.raises(ConfigError, match=r"worker on n7 would .* handloom is .*, sources 0 there, .* here"):
        check_same(PLAIN, theirs, "n7")


def test_a_node_may_have_another_patch_release_and_no_other_version():
    check_same(PLAIN, PLAIN | {"numpy": f"{version('numpy')}.1"}, "n7")
    with pytest.raises(ConfigError, match=r"numpy is 1\.2\.0 there, .* here; torch is 2\.0\.0 there, absent here"):
        check_same(PLAIN, PLAIN | {"numpy": "1.2.0", "torch": "2.0.0"}, "n7")


@pytest.mark.parametrize("mode", ["fused", "split"])
def test_a_worker_with_other_versions_makes_no_row_and_ends_the_run(mode, tmp_path, ray_address):
    """With the actors' own classes; the driver's versions are made up here."""
    drivers = PLAIN | {"scipy": "0.1.0"}
    setup = WorkerSetup(Settings(), Resources(), drivers, str(tmp_path / "db"), {}, {})
    batch = {"shard": np.array([Shard((CLIP,)).to_json()], dtype=object)}
    ledger = start_ledger()
    if mode == "fused":
        out = GroupWorker(setup, ledger)(batch)
    else:
        frames = DecodeWorker(setup, ledger)(batch)
        assert isinstance(pickle.loads(frames["frames"][0]), ShardResult)
        out = GroupWorker(setup, ledger)(frames)
    result = ShardResult.from_json(out["result"][0])
    assert (result.record, result.rejects, result.clip_ids()) == (None, (), ())
    with pytest.raises(ConfigError, match=rf"{here().host} would make other rows .* scipy is .* 0\.1\.0 here"):
        result.check()


def test_a_worker_without_the_device_names_its_node(tmp_path, ray_address):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    settings = Settings(hands={"device": "cuda"})
    setup = WorkerSetup(settings, Resources(), model_versions(settings), str(tmp_path), {}, {})
    out = GroupWorker(setup, start_ledger())({"shard": np.array([Shard((CLIP,)).to_json()], dtype=object)})
    result = ShardResult.from_json(out["result"][0])
    assert result.host == here().host  # another node may have one
    with pytest.raises(StoreError, match=r"hands[.]device = 'cuda', but torch sees no CUDA"):
        result.check()
