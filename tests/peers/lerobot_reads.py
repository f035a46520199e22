"""LeRobot's own reader on our exports. Run by `make test-peers`, in an environment that has lerobot and not handloom.

    python tests/peers/lerobot_reads.py DIR

DIR is what export_for_peers.py wrote. Ends with an AssertionError where something is not as exported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a reader that does not find its files must fail, not download

import numpy as np
import torch
from lerobot.configs.types import FeatureType, NormalizationMode
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import dataset_to_policy_features
from lerobot.processor import NormalizerProcessorStep, TransitionKey

EGO = "observation.images.ego"


def decoders() -> list[str]:
    """LeRobot's two ways to read videos; torchcodec needs FFmpeg's libraries."""
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except (ImportError, RuntimeError) as error:
        print(f"torchcodec cannot be used here, pyav alone is tried: {str(error).splitlines()[0]}")
        return ["pyav"]
    return ["pyav", "torchcodec"]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(1 / np.mean((a - b) ** 2))


def check_clips(root: Path, decoder: str) -> None:
    truth = np.load(root.with_suffix(".npz"))
    dataset = LeRobotDataset("local/clips", root=root, video_backend=decoder)
    lengths, hz = truth["lengths"], float(truth["hz"])
    assert (dataset.num_episodes, len(dataset), dataset.fps) == (len(lengths), lengths.sum(), hz)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for index in range(len(dataset)):
        item = dataset[index]
        episode = int(np.searchsorted(starts, index, side="right")) - 1
        frame = index - starts[episode]
        assert int(item["episode_index"]) == episode
        assert int(item["frame_index"]) == frame
        assert abs(float(item["timestamp"]) - frame / hz) < 1e-4
        assert item["task"] == truth["tasks"][index]
        state = truth["state"][index]
        np.testing.assert_array_equal(item["observation.state"].numpy(), state)
        is_last = index + 1 == starts[episode + 1]
        action = np.full_like(state, np.nan) if is_last else truth["state"][index + 1]
        np.testing.assert_array_equal(item["action"].numpy(), action)
        seen = np.isfinite(item["observation.state"].numpy().reshape(2, -1)).all(axis=1)
        np.testing.assert_array_equal(item["observation.hand_visible"].numpy(), seen)
        shown = item[EGO].numpy().transpose(1, 2, 0)
        assert psnr(shown, truth["pictures"][index] / 255) > 30, index
        others = [n for n in (index - 1, index + 1) if 0 <= n < len(dataset)]
        assert all(psnr(shown, truth["pictures"][n] / 255) < 25 for n in others), index


def check_windows(root: Path, decoder: str) -> None:
    """Steps before and after, from a DataLoader, and of some episodes only."""
    truth = np.load(root.with_suffix(".npz"))
    hz = float(truth["hz"])
    steps = {"action": [0, 1 / hz, 2 / hz], EGO: [-1 / hz, 0]}
    dataset = LeRobotDataset("local/clips", root=root, video_backend=decoder, delta_timestamps=steps, episodes=[1])
    start = int(truth["lengths"][0])
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=workers, drop_last=False)
        seen = 0
        for batch in loader:
            for n in range(len(batch["index"])):
                frame = int(batch["frame_index"][n])
                at = start + frame
                if frame + 3 < truth["lengths"][1]:
                    np.testing.assert_array_equal(batch["action"][n].numpy(), truth["state"][at + 1 : at + 4])
                if frame:
                    shown = batch[EGO][n].numpy().transpose(0, 2, 3, 1)
                    assert all(psnr(shown[k], truth["pictures"][at - 1 + k] / 255) > 30 for k in range(2))
                assert batch[f"{EGO}_is_pad"][n].tolist() == [frame == 0, False]
                seen += 1
        assert seen == truth["lengths"][1]


def check_later_grids(root: Path, decoder: str) -> None:
    """A window of steps, by the rule of docs/exports.md: a slot that holds one grid in all of them."""
    truth = np.load(root.with_suffix(".npz"))
    first, visible = int(truth["later_first"]), truth["later_visible"]
    hz, num = float(truth["hz"]), 5
    steps = {name: [k / hz for k in range(num)] for name in ("regrid_query_frame", "regrid_visible", "track_visible")}
    dataset = LeRobotDataset("local/clips", root=root, video_backend=decoder, delta_timestamps=steps)
    for start in range(12):
        item = dataset[start]
        began = item["regrid_query_frame"]
        seen = item["regrid_visible"].unflatten(1, (began.shape[1], -1))
        same = (began == began[0]).all(0) & (began[0] == 6)
        assert bool(same.any()) == (first <= start and start + num <= first + len(visible)), start
        for slot in torch.nonzero(same).flatten().tolist():
            np.testing.assert_array_equal(seen[:, slot].numpy(), visible[start - first : start - first + num])
        np.testing.assert_array_equal(item["track_visible"].numpy(), truth["visible"][start : start + num])


def check_normalising(root: Path) -> None:
    """LeRobot's own normaliser: unknown values stay NaN, and touch nothing else."""
    dataset = LeRobotDataset("local/clips", root=root, video_backend="pyav")
    features = dataset_to_policy_features(dataset.features)
    modes = {
        FeatureType.STATE: NormalizationMode.MEAN_STD,
        FeatureType.ACTION: NormalizationMode.QUANTILES,
        FeatureType.VISUAL: NormalizationMode.MEAN_STD,
    }
    step = NormalizerProcessorStep.from_lerobot_dataset(dataset, features, modes)
    items = [dataset[n] for n in range(20)]
    observation = {k: torch.stack([i[k] for i in items]) for k in items[0] if k.startswith("observation.")}
    transition = {
        TransitionKey.OBSERVATION: observation,
        TransitionKey.ACTION: torch.stack([i["action"] for i in items]),
    }
    found = step(transition)
    for before, after in (
        (observation["observation.state"], found[TransitionKey.OBSERVATION]["observation.state"]),
        (transition[TransitionKey.ACTION], found[TransitionKey.ACTION]),
    ):
        assert torch.equal(torch.isnan(before), torch.isnan(after))
        known = after[torch.isfinite(after)]
        assert len(known) > 100
        assert float(known.abs().max()) < 10
    assert torch.isfinite(found[TransitionKey.OBSERVATION][EGO]).all()


def check_merging(roots: list[Path], out: Path) -> None:
    """LeRobot's own tool merges two exports into a dataset that reads back as both.

    Those without NaN: in lerobot 0.4.4 it writes through pandas, which makes nulls of NaN, which the reader refuses.
    """
    names = [f"local/{root.name}" for root in roots]
    aggregate_datasets(names, "local/merged", roots=roots, aggr_root=out)
    merged = LeRobotDataset("local/merged", root=out, video_backend="pyav")
    truths = [np.load(root.with_suffix(".npz")) for root in roots]
    state = np.concatenate([truth["state"] for truth in truths])
    images = np.concatenate([truth["pictures"] for truth in truths])
    assert len(merged) == len(state)
    for index in range(0, len(merged), 7):
        item = merged[index]
        np.testing.assert_array_equal(item["observation.state"].numpy(), np.nan_to_num(state[index]))
        seen = np.isfinite(state[index].reshape(2, -1)).all(axis=1)
        np.testing.assert_array_equal(item["observation.hand_visible"].numpy(), seen)
        assert psnr(item[EGO].numpy().transpose(1, 2, 0), images[index] / 255) > 30, index


def check_robots(root: Path, decoder: str) -> None:
    truth = np.load(root.with_suffix(".npz"))
    dataset = LeRobotDataset("local/robots", root=root, video_backend=decoder)
    assert dataset.meta.robot_type == "arm"
    assert dataset.meta.names["action"] == [f"joint_{n}.pos" for n in range(7)]
    for index in range(0, len(dataset), 5):
        item = dataset[index]
        np.testing.assert_array_equal(item["observation.state"].numpy(), truth["state"][index])
        np.testing.assert_array_equal(item["action"].numpy(), truth["action"][index])
        assert item["task"] == "pick the cube"
        assert item["observation.images.wrist"].shape == (3, 64, 96)
        assert not torch.equal(item["observation.images.wrist"], item["observation.images.front"])


def main(folder: str) -> None:
    torch.set_num_threads(1)
    root = Path(folder).resolve()
    for decoder in decoders():
        for name in ("clips", "split"):
            check_clips(root / name, decoder)
            check_windows(root / name, decoder)
            check_later_grids(root / name, decoder)
        check_robots(root / "robots", decoder)
        print(f"lerobot with {decoder}: every frame is as exported")
    check_normalising(root / "clips")
    check_merging([root / "zero_a", root / "zero_b"], root / "merged")
    print("lerobot's normaliser and its merging of datasets: as they should be")


if __name__ == "__main__":
    main(sys.argv[1])
