"""`hands.backend = "package.module:Class"`: the documented adapter as an installed package, and what it gets wrong."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from support.extraction import rows_of
from support.own_package import code_of_page, install

from handloom.errors import ClipError, ConfigError
from handloom.geometry.camera.intrinsics import camera_for, project
from handloom.geometry.hands.placed import placed_hands
from handloom.models.own.hands import OwnHands, backend_identity, backend_licence
from handloom.schemas.clip import Clip
from handloom.schemas.settings import CameraConfig, HandsConfig, Settings
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.values import VideoInfo
from handloom.stages.versions import model_versions
from handloom.video.decode.frame_store import FrameStore

CLIP = Clip("test:v:0-1000", "test", "v", "v.mp4", 0.0, 1.0)
INFO = VideoInfo(640, 480, 15.0, "h264", "yuv420p", 0, 0.0, 1.0, 4)  # frames are half as large
T = 4

DETECTOR = """
import numpy as np

class Detector:
    def __init__(self, options, device):
        self.calls = 0

    def __call__(self, image):  # none in the first frame, a left and two right hands in the others
        self.calls += 1
        boxes = np.array([[40.0, 90, 120, 170], [180, 100, 260, 190], [0, 0, 50, 50]])
        seen = slice(0, 0 if self.calls % 4 == 1 else 3)
        return boxes[seen], np.array([0, 1, 1])[seen], np.array([0.9, 0.8, 0.4])[seen]
"""
LAB = """
import numpy as np
from handloom.models.protocols import BackendHands

class Hands:
    def __init__(self, options, device):
        self.options = options
        if "weights" in options:
            open(options["weights"]).close()

    @classmethod
    def identity(cls, options):
        return options.get("identity", {"code": "1", "weights": "abc"})

    def find(self, clip, info, frames, camera):
        slots = (len(frames), 2)
        metres = np.zeros((*slots, 21, 3)) + [0.05, 0.1, 0.5] + np.linspace(0, 0.05, 21)[:, None]
        plane = metres[..., :2] / metres[..., 2:]
        px = plane * camera.camera_matrix[[0, 1], [0, 1]] + camera.camera_matrix[:2, 2]
        visible = np.ones(slots, bool)
        visible[0, 0] = False
        given = {"visible": visible, "confidence": np.full(slots, 0.5), "keypoints_px": px, "keypoints_cam_m": metres}
        for name in ("confidence", "keypoints_px", "keypoints_cam_m"):
            given[name][~visible] = np.nan
        change = self.options.get("change")
        if change:
            exec(change, {"np": np, "given": given})
        return BackendHands(**given) if "as_dict" not in self.options else given

NUMBER = 5

class NoFind:
    pass
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """my_lab with the given modules, installed outside the repository."""

    def make(**modules: str) -> None:
        monkeypatch.syspath_prepend(install(tmp_path / "site", "my_lab", modules))

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "my_lab"]:
        del sys.modules[name]


def frames(num: int = T) -> FrameStore:
    store = FrameStore(np.arange(num) / 15)
    store.append(np.random.default_rng(0).integers(0, 255, (num, 240, 320, 3)).astype(np.uint8))
    return store


def config(name: str = "my_lab.hands:Hands", **options) -> HandsConfig:
    return HandsConfig(backend=name, options=options or None)


def found(**options):
    return OwnHands(config(**options), CameraConfig()).extract(CLIP, INFO, frames())


def test_the_documented_adapter_runs_from_an_installed_package(lab, tmp_path):
    """The page's own code around a tiny random network; a left hand is a right one in the mirror."""
    torch = pytest.importorskip("torch")
    adapter, network = code_of_page("hand_backends.md")
    lab(hands=adapter, network=network, detector=DETECTOR)
    from my_lab.hands import Wilor, crop_of
    from my_lab.network import HandNetwork

    torch.manual_seed(0)
    sizes = {"side": 32, "patch": 16, "width": 16, "depth": 1, "heads": 2}
    tiny = HandNetwork(**sizes)
    for name, values in tiny.mano.items():
        torch.nn.init.normal_(values, std=0.03 if name == "template" else 0.002)
    torch.save({"sizes": sizes, "state": tiny.state_dict()}, tmp_path / "wilor.pt")
    chosen = config("my_lab.hands:Wilor", weights=str(tmp_path / "wilor.pt"))
    hands = OwnHands(chosen, CameraConfig()).extract(CLIP, INFO, frames())
    assert hands.visible.tolist() == [[False, False], [True, True], [True, True], [True, True]]
    np.testing.assert_allclose(hands.confidence[1:], np.tile(np.float32([0.9, 0.8]), (3, 1)))
    camera = camera_for(CLIP, INFO, CameraConfig())
    np.testing.assert_allclose(project(hands.cam_m[1:], camera), hands.keypoints_px[1:], atol=0.01)
    middle = np.nanmean(hands.keypoints_px[1:], axis=(0, 2))
    np.testing.assert_allclose(middle, [[160, 260], [440, 290]], atol=120)  # source pixels, near the boxes
    assert backend_licence(chosen) == "cc-by-nc-nd-4.0"
    assert backend_identity(chosen).startswith("code 1, torch 2.")
    mirrored = frames().rgb(1)[:, ::-1]
    crop = crop_of(frames().rgb(1), np.array([80.0, 130]), 160.0, 32, mirrored=True)
    np.testing.assert_allclose(crop, crop_of(mirrored, np.array([319 - 80.0, 130]), 160.0, 32, False), atol=0.05)
    assert issubclass(Wilor, object)


def test_metres_and_pixels_are_taken_as_they_are(lab):
    lab(hands=LAB)
    hands = found()
    assert hands.visible.sum() == 7
    assert np.isnan(hands.cam_m[0, 0]).all()
    camera = camera_for(CLIP, INFO, CameraConfig())
    np.testing.assert_allclose(project(hands.cam_m[1:], camera), hands.keypoints_px[1:], atol=1e-3)
    assert (hands.infilled.any(), hands.view, hands.doubts) == (False, None, None)
    placed = placed_hands(hands, camera, camera)
    np.testing.assert_array_equal(placed.keypoints_cam_m, hands.cam_m)
    assert placed.sigma_m is None


def test_a_focal_length_that_is_found_later_moves_a_hand_along_the_axis(lab):
    lab(hands=LAB)
    hands = found()
    before = camera_for(CLIP, INFO, CameraConfig())
    after = replace(before, camera_matrix=before.camera_matrix * np.array([[1.2], [1.2], [1.0]]))
    after.camera_matrix[:2, 2] = before.camera_matrix[:2, 2]
    moved = placed_hands(hands, before, after).keypoints_cam_m[1:].astype(float)
    given = hands.cam_m[1:].astype(float)
    np.testing.assert_allclose(moved[..., 2].mean(-1), 1.2 * given[..., 2].mean(-1), rtol=1e-6)
    np.testing.assert_allclose(moved - moved.mean(-2, keepdims=True), given - given.mean(-2, keepdims=True), atol=1e-7)
    assert np.abs(project(moved, after) - hands.keypoints_px[1:]).max() < 3  # weak perspective: not to the last pixel


def test_hands_that_are_not_placed_are_left_to_the_fit(lab):
    lab(hands=LAB)
    hands = found(change='given["model_m"] = given.pop("keypoints_cam_m")')
    assert hands.cam_m is None
    assert np.isfinite(hands.model_m[hands.visible]).all()


def test_a_row_holds_the_backends_own_metres(lab, clips):
    """Nothing is fitted, not even where the lens is assumed and would be estimated from hands."""
    lab(hands=LAB)
    settings = Settings(hands={"backend": "my_lab.hands:Hands"}, video={"sample_hz": 5}, tracks={"grid": 4, "extra": 0})
    (row,) = (row_arrays(row) for row in rows_of(clips[:1], settings))
    assert row["hand_visible"].sum() == 2 * row["num_frames"] - 1
    metres = row["hand_keypoints_cam_m"][row["hand_visible"]].astype(float)
    np.testing.assert_allclose(metres[:, 0, :2], [[0.05, 0.1]] * len(metres), atol=1e-6)
    shape = np.repeat(np.linspace(0, 0.05, 21)[:, None], 3, axis=1)
    np.testing.assert_allclose(metres - metres[:, :1], np.tile(shape, (len(metres), 1, 1)), atol=1e-6)
    assert row["hand_sigma_m"] is None
    assert model_versions(settings)["hand_backend"] == "code 1, weights abc"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ('given["keypoints_px"] = given["keypoints_px"][:-1]', r"keypoints_px of the shape \(3, 2, 21, 2\), exp"),
        ('given["keypoints_cam_m"] = given["keypoints_cam_m"][..., :2]', r"keypoints_cam_m of the shape .* 21, 3\)"),
        ('given["visible"] = given["visible"].astype(int)', "visible as int64, expected bool"),
        ('given["confidence"] = np.ones((4, 2), int)', "confidence as int64, expected floats"),
        ('given["confidence"][1] = 7.5', "a confidence of 0.5 to 7.5, expected 0 to 1"),
        ('given["confidence"][0, 0] = 0.5', "confidence with numbers in frame 0, hand 0, where no hand is visible"),
        ('given["keypoints_px"][2, 1, 3] = np.nan', "keypoints_px that is not finite in frame 2, hand 1,"),
        ('given["keypoints_cam_m"][2, 1, 3] = np.nan', "keypoints_cam_m with numbers in frame 2, hand 1"),
        ('given["keypoints_cam_m"][..., 2] *= -1', "keypoints_cam_m of a hand at z = -0.5.* from the camera forward"),
        ('given["keypoints_cam_m"][..., :2] *= -1', r"keypoints_cam_m that .* 0.32 .* away from keypoints_px"),
        ('given["keypoints_cam_m"] = None', "neither keypoints_cam_m nor model_m"),
    ],
)  # fmt: skip
def test_what_a_clips_hands_cannot_be_is_a_reject_that_says_so(lab, change, problem):
    lab(hands=LAB)
    with pytest.raises(ClipError, match=rf"hands: my_lab.hands:Hands gave {problem}") as caught:
        found(change=change)
    assert (caught.value.clip_id, caught.value.reason) == (CLIP.clip_id, "model_failed")


def test_a_hand_that_could_not_be_placed_is_nan_in_metres_alone(lab):
    lab(hands=LAB)
    hands = found(change='given["keypoints_cam_m"][2, 1] = np.nan')
    assert hands.visible[2, 1]
    assert np.isfinite(hands.keypoints_px[2, 1]).all()
    assert np.isnan(placed_hands(hands, *[camera_for(CLIP, INFO, CameraConfig())] * 2).keypoints_cam_m[2, 1]).all()


def test_a_failing_device_is_a_reject_and_a_wrong_answer_names_its_type(lab):
    lab(hands=LAB)
    with pytest.raises(ClipError, match=r"my_lab\.hands:Hands failed: RuntimeError: CUDA out"):
        found(change='raise RuntimeError("CUDA out of memory")')
    with pytest.raises(ClipError, match=r"gave a dict, expected a handloom\.models\.protocols\.Back"):
        found(as_dict=True)


def test_a_class_that_cannot_be_used_says_why(lab):
    lab(hands=LAB, broken="import absent_package", wrong="def f(:\n", empty="")
    for name, problem in {
        "nobody.hands:Hands": "nobody.hands cannot be imported: ModuleNotFoundError: No module",
        "my_lab.broken:Hands": "my_lab.broken cannot be imported: .*absent_package",
        "my_lab.wrong:Hands": "my_lab.wrong cannot be imported: SyntaxError",
        "my_lab.hands:Hand": r"my_lab.hands has no Hand\n.*it has Hands, NoFind",
        "my_lab.empty:Hands": r"my_lab.empty has no Hands\n.*it defines nothing",
        "my_lab.hands:NUMBER": "NUMBER' is a int, expected a class",
        "my_lab.hands:NoFind": "the class lacks find, identity",
    }.items():
        with pytest.raises(ConfigError, match=problem):
            OwnHands(config(name), CameraConfig())
    with pytest.raises(ConfigError, match=r"(?s)cannot be constructed: FileNotFoundError.*hands.options \(weights\)"):
        OwnHands(config(weights="/absent/file"), CameraConfig())


def test_the_identity_is_a_dict_of_texts(lab):
    lab(hands=LAB)
    assert backend_identity(config()) == "code 1, weights abc"
    assert backend_licence(config()) is None
    for said in (["1"], {}, {"code": 1}):
        with pytest.raises(ConfigError, match=r"identity\(\) of hands.backend = .* expected a dict of texts"):
            backend_identity(config(identity=said))


def test_a_gpu_that_is_not_there_is_an_error(lab):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    lab(hands=LAB)
    with pytest.raises(ConfigError, match=r"hands\.device = 'cuda', but torch sees no CUDA device"):
        OwnHands(config().model_copy(update={"device": "cuda"}), CameraConfig())


def test_the_settings_take_a_class_and_its_options_and_keys_of_before_stay():
    """`options` came with 0.4: without them a database of before has the same run key."""
    old = Settings().model_dump(mode="json")
    assert old["hands"].pop("options") is None
    assert Settings(**old).run_key({}) == Settings().run_key({})
    own = {"backend": "my_lab.hands:Hands"}
    keys = {Settings(hands={**own, "options": options}).run_key({}) for options in (None, {}, {"a": 1}, {"a": 2})}
    assert len(keys | {Settings().run_key({})}) == 5
    for wrong in ("wilor", "my_lab.hands", "my lab:Hands", ":Hands", "my_lab:"):
        with pytest.raises(ValidationError, match="backend"):
            Settings(hands={"backend": wrong})
