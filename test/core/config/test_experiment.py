from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import BackboneConfig, Experiment, TrainConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError


@pytest.mark.parametrize("name", sorted(path.stem for path in config.CONFIG_FOLDER.glob("*.yaml")))
def test_shipped_configurations_survive_a_round_trip(name):
    experiment = config.load(Experiment, name)
    assert config.from_mapping(Experiment, config.to_mapping(experiment)) == experiment


def test_swin_t_is_the_protocols_camera_network():
    experiment = config.load(Experiment, "nuscenes_swin_t")
    assert (experiment.model.image.width, experiment.model.image.height) == (704, 256)
    lift = experiment.model.lift
    assert (lift.depth_max - lift.depth_min) / lift.depth_step == 118
    assert lift.grid.shape == (256, 256)
    assert experiment.grid == BevGrid(-49.06, 50.94)  # around the LiDAR


def test_a_file_and_overrides_are_merged_in_order(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 3, seed: 1}\ndata: {cameras: [a]}\n")
    experiment = config.load(Experiment, path, ["train.epochs=5", "grid.resolution=1.0", "data.cameras=[x,y]"])
    assert (experiment.train.epochs, experiment.train.seed) == (5, 1)
    assert experiment.grid == BevGrid(resolution=1.0)
    assert experiment.data.cameras == ["x", "y"]
    assert experiment.train.gamma == TrainConfig().gamma


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_values_in_range_are_taken_as_they_are(warmup, epochs):
    train = config.from_mapping(TrainConfig, {"warmup": warmup, "epochs": epochs})
    assert (train.warmup, train.epochs) == (warmup, epochs)


def test_roots_are_one_folder_or_a_list_of_them():
    one = config.load(Experiment, "tiny", ["data.train_root=a"]).data
    two = config.load(Experiment, "tiny", ["data.train_root=[a,b]", "data.val_root=[c,d]"]).data
    assert (one.train_roots, two.train_roots, two.val_roots) == (["a"], ["a", "b"], ["c", "d"])
    assert "root_weights" not in config.to_mapping(one)  # files and hashes of one root are as they were


def test_defaults_are_not_shared():
    a, b = Experiment(), Experiment()
    a.data.cameras.append("x")
    a.model.backbone.options["y"] = 1
    assert "x" not in b.data.cameras
    assert not b.model.backbone.options


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=5", "train.epoch"),
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=0", "train.epochs = 0 must be at least 1"),
        ("train.warmup=1.5", "train.warmup = 1.5 must be between 0 and 1"),
        ("train.warmup=nan", "train.warmup = nan must be"),
        ("train.precision=8-bit", "train.precision = '8-bit' is not one of 32-true"),
        ("model.image.mean=[0.5, 2.0, 0.5]", "model.image.mean = 2.0 must be between 0 and 1"),
        ("model.lift.downsample=3", "model.lift.downsample = 3 is not one of 1, 2, 4"),
        ("grid.resolution=0.3", "is not a whole number of 0.3 m cells"),
        ("train.epochs", "is not of the form key=value"),
        ("distill.levels={F: 0.25", "distill.levels: is not YAML"),
        ("data.cameras=[0,1", "data.cameras: is not YAML"),
        ('data.train_root="', "data.train_root: is not YAML"),
        ("data.train_root=[]", r"data.train_root = \[\] is neither a text nor a list of texts"),
        ("data.val_root=[a,3]", "data.val_root = .* is neither"),
        ("data.val_root={a: b}", "data.val_root = .* is neither"),
        ("data.train_root=null", "data.train_root = None is neither"),
        ("data.unlabelled_root=[]", r"data.unlabelled_root = \[\] is neither"),
        ("data.root_weights=[1,0]", "data.root_weights = 0.0 must be between"),
        ("train.initial=*b", r"train.initial: is not YAML \(found undefined alias"),
        ("train.initial=a: b: c", "train.initial: is not YAML"),
        ("train.initial=\0", "train.initial: is not YAML"),
        ("train.epochs=" + "9" * 5000, "train.epochs: Exceeds the limit"),
        ("data.cameras=" + "[" * 5000 + "]" * 5000, "data.cameras: is nested too deeply"),
        ("data.cameras.0=", r"data.cameras.0: holds settings of another kind.*Give a list"),
        ("data.cameras[0]=x", "holds settings of another kind"),
        ("data.cameras={a: b}", "data.cameras: holds settings of another kind"),
        ("train=3", "setting train: Merge error: int is not a subclass of TrainConfig"),
        ("train.epochs=${", "train.epochs: no viable alternative"),
        ("train.epochs=${train.epochs}", "train.epochs"),
        ("model.lift.depth_max=1e20", r"depth_max = 1e\+20 must be between 1 and 1000"),
        ("train.learning_rate=inf", "train.learning_rate = inf must be a finite number"),
        ("model.lift.z_min=nan", "z_min = nan must be a finite number"),
        ("train.seed=4294967296", "train.seed = 4294967296 must be between 0 and 4294967295"),
    ],
)
def test_a_wrong_key_type_or_range_names_the_key(override, message):
    with pytest.raises(BridgeTAError, match=message) as error:
        config.load(Experiment, "tiny", [override])
    assert error.value.exit_code == 2


# Each line is four times as long as the one before, once its aliases are written out.
ALIASES = b"a: &a 1\n" + b"".join(
    b"%c: &%c [*%c, *%c, *%c, *%c]\n" % (after, after, *[before] * 4) for before, after in pairwise(b"abcdefghijklm")
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: {epochs: 3", "is not YAML"),
        (b"- 1\n- 2\n", "must hold a mapping"),
        (b"\xff\xfe\x00", "cannot be read|is not YAML"),
        (b"train: {epochs: -1}", r"train.epochs = -1 must be at least 1"),
        (b"nonsense: 1", "nonsense"),
        (b"data: {cameras: {a: b}}", "holds settings of another kind"),
        (ALIASES, "more than 5,000 values"),
        (b"data: {train_root: '${a}${a}', a: '${b}${b}', b: '${c}${c}'}", r"'\$\{a\}\$\{a\}' is a reference"),
        (b"data: {train_root: '${oc.env:HOME}'}", "is a reference"),
        (b"data: {train_root: '${'}", "is not YAML|is a reference"),
        (b"a: " + b"[" * 100 + b"]" * 100, "nested too deeply"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(BridgeTAError, match=message) as error:
        config.load(Experiment, path)
    assert "bad.yaml" in str(error.value)
    assert error.value.exit_code == 2


def test_a_missing_name_lists_the_shipped_names(tmp_path):
    with pytest.raises(BridgeTAError, match=r"nowhere.yaml: does not exist"):
        config.load(Experiment, tmp_path / "nowhere.yaml")
    with pytest.raises(BridgeTAError, match=r"no configuration large.*swin_t.*tiny"):
        config.load(Experiment, "large")


def test_a_dataset_in_the_place_of_the_configuration_is_told_where_it_belongs(tmp_path):
    with pytest.raises(BridgeTAError, match=r"is a folder.*configuration comes first.*data\.train_root=") as error:
        config.load(Experiment, str(tmp_path))
    assert error.value.exit_code == 2


def test_none_and_free_options_are_kept():
    backbone = config.from_mapping(BackboneConfig, {"pretrained": None, "options": {"depths": [1, 2], "x": "y"}})
    assert backbone.pretrained is None
    assert backbone.options == {"depths": [1, 2], "x": "y"}
