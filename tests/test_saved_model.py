import os
import pickle
import zipfile
from functools import partial

import pytest
import torch
import yaml

from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import SavedModel, data_arguments, saved_record
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.weights.loading import load_model


def tiny_model(**settings):
    skeleton = load_skeleton("coco_17")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PoseNetwork(
            num_keypoints=skeleton.num_keypoints,
            depths=[1, 1, 1, 1],
            embed_dims=[16, 16, 32, 32],
            head_dim=16,
            deconv_channels=[16, 16, 16],
        )
    fields = {
        "network": network,
        "codec": HeatmapCodec(64, 96, sigma=1.5, method="udp"),
        "skeleton": skeleton,
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
        "box_padding": 1.3,
        "config": {
            "data": {
                "_target_": "uniformer_pose.data.datamodule.PersonCrops",
                "root": "data/people",
                "train_annotations": "train.json",
                "train_images": "train",
                "val_annotations": "val.json",
                "val_images": "val",
                "val_boxes": "boxes.json",
                "skeleton": "coco_17",
                "codec": {"_target_": "uniformer_pose.keypoints.heatmap_codec.HeatmapCodec", "height": 64},
                "mean": [0, 0, 0],
                "std": [1, 1, 1],
                "box_padding": 1.3,
                "eval_batch_size": 7,
            },
            "seed": 3,
        },
        "versions": {"torch": torch.__version__},
    }
    return SavedModel(**(fields | settings))


def contents(model):
    """What a checkpoint of the model holds, as Lightning writes it."""
    weights = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    return {"state_dict": weights, "global_step": 5, "uniformer_pose": saved_record(model)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "best.ckpt"


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(InputError) as raised:
        load_model(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# ------------------------------------------------------------------------------------------------- round trip


def test_a_saved_model_gives_the_same_heatmaps_as_before(path):
    model = tiny_model()
    model.network.train()
    with torch.no_grad():
        model.network(torch.rand(4, 3, 64, 96))  # BatchNorm's statistics are saved too
    torch.save(contents(model), path)

    loaded = load_model(path)[0]

    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded.network(images), model.network.eval()(images))
    assert not loaded.network.training


def test_everything_beside_the_weights_survives_too(path):
    model = tiny_model()
    torch.save(contents(model), path)

    loaded = load_model(path)[0]

    assert loaded.codec.to_dict() == model.codec.to_dict()
    assert loaded.skeleton == model.skeleton
    assert (loaded.mean, loaded.std, loaded.box_padding) == (model.mean, model.std, 1.3)
    assert loaded.config == model.config
    assert loaded.versions == {"torch": str(torch.__version__)}


def test_the_record_is_plain_data(path):
    def check(value):
        assert type(value) in (dict, list, str, int, float, bool, type(None)), value
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(child)

    check(saved_record(tiny_model()))
    torch.save(contents(tiny_model()), path)
    assert torch.load(path, weights_only=True)["uniformer_pose"]["format"] == 1


def test_loading_leaves_the_random_state_alone(path):
    torch.save(contents(tiny_model()), path)
    before = torch.random.get_rng_state()

    load_model(path)

    assert torch.equal(torch.random.get_rng_state(), before)


# ----------------------------------------------------------------------------------------------- damaged files


def test_a_missing_file_is_named(path):
    assert refusal(path).startswith(f"no such file: {path}; give a path, ")


def test_a_folder_is_no_checkpoint(tmp_path):
    assert "a folder without model.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_noticed(path, kept):
    torch.save(contents(tiny_model()), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])

    assert "not a whole weight file" in refusal(path)


def test_one_flipped_byte_of_any_weight_is_noticed(path):
    torch.save(contents(tiny_model()), path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size >= 64 and "/data/" in entry.filename]
    assert len(entries) > 20

    for entry in entries[::9]:
        weight = zipfile.ZipFile(path).read(entry)
        position = whole.index(weight[:64], entry.header_offset) + 32
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert f"damaged at '{entry.filename}' (checksum); copy or fetch it again, or use an older one" in refusal(path)
        path.write_bytes(whole)


def weights_or_refusal(path):
    try:
        return load_model(path)[0].network.state_dict()
    except InputError as error:
        return str(error)


def test_a_flipped_byte_anywhere_is_refused_in_one_line_or_does_no_harm(path):
    model = tiny_model()
    expected = model.network.state_dict()
    torch.save(contents(model), path)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.randint(len(whole), (20,), generator=generator).tolist()
    directory = range(len(whole) - 1500, len(whole), 41)  # of the archive, and its end mark

    for position in [*anywhere, *directory, *range(0, 120, 7)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        loaded = weights_or_refusal(path)
        if isinstance(loaded, str):
            assert "\n" not in loaded
        else:
            assert all(torch.equal(weight, expected[name]) for name, weight in loaded.items()), position


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a weight file but an empty file"),
        (b"<html>404</html>", "not a weight file but a web page"),
        (pickle.dumps({"state_dict": {}}), "not a weight file"),
    ],
)
def test_a_file_of_another_kind_is_refused(path, content, expected):
    path.write_bytes(content)

    assert expected in refusal(path)


def test_an_archive_of_other_files_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("document.xml", "<w/>")

    assert "not a whole weight file" in refusal(path)


# --------------------------------------------------------------------------------------------- foreign content


def without(content, *names):
    """A checkpoint's contents without one entry of its record."""
    record = {name: value for name, value in content["uniformer_pose"].items() if name not in names}
    return content | {"uniformer_pose": record}


def with_record(content, **entries):
    return content | {"uniformer_pose": content["uniformer_pose"] | entries}


def other_network(content, **arguments):
    return with_record(content, network=content["uniformer_pose"]["network"] | arguments)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda content: [1, 2], "holds a list, not names and tensors"),
        (lambda content: {"model": content["state_dict"]}, "multiples of head_dim=64"),
        (lambda content: content | {"state_dict": [1]}, "weights must lie in one place"),
        (lambda content: {"state_dict": content["state_dict"]}, "multiples of head_dim=64"),
        (lambda content: content | {"uniformer_pose": "yes"}, "its 'uniformer_pose' entry is damaged"),
        (partial(with_record, format=2), "format 2, this version reads 1; update uniformer-pose"),
        (lambda content: without(content, "format"), "format None, this version reads 1"),
        (lambda content: without(content, "network"), "entry is damaged (KeyError: 'network')"),
        (lambda content: without(content, "config"), "entry is damaged (KeyError: 'config')"),
        (partial(with_record, network=[1]), "entry is damaged"),
        (partial(with_record, codec=None), "entry is damaged"),
        (partial(with_record, codec={"height": 64}), "entry is damaged"),
        (partial(with_record, skeleton={"name": "x"}), "entry is damaged"),
        (partial(with_record, mean="abc"), "entry is damaged"),
        (partial(with_record, box_padding=None), "entry is damaged"),
        (partial(with_record, config=5), "entry is damaged"),
        (partial(other_network, heads=4), "unexpected keyword argument 'heads'"),
        (partial(other_network, head_dim=0), "entry is damaged"),
        (partial(other_network, depths="many"), "entry is damaged"),
        (partial(other_network, deconv_channels=[-1, 2, 3]), "entry is damaged"),
        (partial(other_network, depths=[1, 1, 2, 1]), "weights are not of the network that the file itself describes"),
        (partial(other_network, num_keypoints=3), "weights are not of the network that the file itself describes"),
        (lambda content: content | {"state_dict": {}}, "weights are not of the network that the file itself describes"),
        (lambda content: content | {"state_dict": {1: torch.ones(1)}}, "no named tensors (1)"),
        (
            lambda content: content | {"state_dict": dict.fromkeys(content["state_dict"], 1.0)},
            "entries beside the weights are no named tensors",
        ),
    ],
)
def test_a_checkpoint_that_is_not_ours_or_contradicts_itself_is_refused(path, spoil, expected):
    torch.save(spoil(contents(tiny_model())), path)

    assert expected in refusal(path)


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("where", ["state_dict", "uniformer_pose", "config", "top"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(path, tmp_path, where):
    marker = tmp_path / "marker"
    content = contents(tiny_model())
    if where == "config":
        content["uniformer_pose"]["config"] = {"data": Touch(marker)}
    else:
        content[where] = Touch(marker)
    torch.save(content, path)

    message = refusal(path)

    assert "refused, because it holds posix.system, which loading it would run" in message
    assert not marker.exists()


def test_a_pickle_without_an_archive_is_refused_too(path, tmp_path):
    marker = tmp_path / "marker"
    torch.save({"state_dict": Touch(marker)}, path, _use_new_zipfile_serialization=False)

    assert "refused, because it holds posix.system" in refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("entry", ["network", "codec", "skeleton"])
def test_a_target_in_the_record_is_never_called(path, tmp_path, entry):
    marker = tmp_path / "marker"
    evil = {"_target_": "os.system", "command": f"touch {marker}"}
    torch.save(with_record(contents(tiny_model()), **{entry: evil}), path)

    assert "entry is damaged" in refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("evil_data", "expected"),
    [
        ({"_target_": "os.system", "command": "touch {marker}"}, "data.command.*no argument command"),
        (
            {"_target_": "uniformer_pose.data.datamodule.PersonCrops", "root": {"_target_": "os.system"}},
            "data.root is a mapping, not a value; give data.root=<value>",
        ),
        ({"root": 5}, "data.root=5: must be a valid string"),
        ({"geometric": {"_target_": "os.system"}}, "data.geometric is a mapping"),
    ],
)
def test_a_target_in_the_recorded_config_is_never_called(path, tmp_path, evil_data, expected):
    marker = tmp_path / "marker"
    evil_data = {
        name: value.format(marker=marker) if isinstance(value, str) else value for name, value in evil_data.items()
    }
    torch.save(contents(tiny_model(config={"data": evil_data})), path)
    model = load_model(path)[0]

    with pytest.raises(InputError, match=expected) as raised:
        data_arguments(model, {})

    assert "\n" not in str(raised.value)
    assert not marker.exists()


# -------------------------------------------------------------------------------------------- data of the model


def test_an_evaluation_uses_the_data_of_the_training_with_the_models_own_preprocessing():
    model = tiny_model()

    data = PersonCrops(**data_arguments(model, {}))

    assert str(data.root) == "data/people"
    assert data.val_boxes == "boxes.json"
    assert data.eval_batch_size == 7
    assert data.codec is model.codec
    assert (data.mean, data.std, data.box_padding) == (model.mean, model.std, 1.3)
    assert data.skeleton == model.skeleton


def test_overrides_take_the_place_of_the_trainings_data_unless_they_are_none():
    arguments = data_arguments(tiny_model(), {"root": "elsewhere", "val_boxes": None, "num_workers": 0})

    assert arguments["root"] == "elsewhere"
    assert arguments["val_boxes"] == "boxes.json"
    assert arguments["num_workers"] == 0


def test_limits_of_the_training_do_not_pass_into_an_evaluation():
    model = tiny_model()
    limits = {"max_images": 4, "prepared": "shards", "on_bad_image": "skip"}
    model.config["data"] = {**model.config["data"], **limits, "categories": ["dog"]}

    arguments = data_arguments(model, {})
    group = tiny_model().config["data"] | {"root": "coco", "codec": {"height": 256}}
    whole = data_arguments(model, {**group, "max_images": 2, "categories": None})

    assert limits.keys().isdisjoint(arguments)
    assert arguments["categories"] == ["dog"]  # what the data are, not how much of them
    assert whole["max_images"] == 2
    assert "categories" not in whole


def test_a_whole_data_group_leaves_the_models_preprocessing_alone():
    model = tiny_model()
    group = {"skeleton": "coco_17", "codec": {"height": 256}, "mean": [0, 0, 0], "std": [1, 1, 1], "box_padding": 2.0}

    arguments = data_arguments(model, group)

    assert arguments["codec"] is model.codec
    assert arguments["skeleton"] is model.skeleton
    assert (arguments["mean"], arguments["std"], arguments["box_padding"]) == (model.mean, model.std, 1.3)


def test_data_of_another_skeleton_is_refused_by_name(tmp_path):
    fields = load_skeleton("coco_17").to_dict() | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    data_arguments(tiny_model(), {"skeleton": str(tmp_path / "mine.yaml")})  # another name for the same keypoints

    fields["keypoints"]["nose"]["sigma"] = 0.5
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    with pytest.raises(InputError, match=r"data.skeleton=.*mine.yaml: other keypoints, order or sigmas.*'coco_17'"):
        data_arguments(tiny_model(), {"skeleton": str(tmp_path / "mine.yaml")})


def test_a_model_that_does_not_know_its_data_asks_for_it():
    with pytest.raises(InputError, match="does not say what it was trained on; give data=<one of conf/data>"):
        data_arguments(tiny_model(config={}), {})
