"""What transformers asks of every model of its own, and what its users do by habit, held against both models."""

import copy
import inspect
import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from accelerate import infer_auto_device_map, init_empty_weights, load_checkpoint_and_dispatch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    AutoProcessor,
    AutoVideoProcessor,
    ResNetModel,
    ViTImageProcessor,
)

from mma_mrnnet import (
    MMAConfig,
    MMAForImageClassification,
    MMAModel,
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetForVideoClassification,
    MMAMRNNetVideoProcessor,
)
from mma_mrnnet.hub.checkpoints import (
    CheckpointError,
    load_checkpoint,
    load_extractor,
    pretrained_folder,
)
from mma_mrnnet.model.labels import EXPRESSIONS

KINDS = ("tiny_mma", "tiny_model")
CLASSES = {
    "tiny_mma": (MMAConfig, MMAModel),
    "tiny_model": (MMAMRNNetConfig, MMAMRNNetForIntensity),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def model(kind, request):
    """One of the two models in eval mode, its weights and buffers moved away from where they start."""
    model = request.getfixturevalue(kind)
    return shaken(model)


def shaken(model):
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_((torch.rand_like(value) - 0.5) * 0.1)
    return model


def inputs_of(kind, rows=3):
    if kind == "tiny_mma":
        return {"pixel_values": torch.rand(rows, 3, 32, 32)}
    frame_mask = torch.arange(4) < torch.arange(4, 4 - rows, -1).clamp(min=1).unsqueeze(1)
    return {"pixel_values": torch.rand(rows, 4, 3, 32, 32), "frame_mask": frame_mask}


def labels_of(kind, rows=3):
    if kind == "tiny_mma":
        return {
            "valence_arousal_labels": torch.rand(rows, 2),
            "expression_labels": torch.arange(rows),
            "action_unit_labels": torch.rand(rows, 17).round(),
        }
    return {"labels": torch.rand(rows, 7)}


def equal(outputs, others):
    """Whether two outputs hold the same bits in the same places."""
    return outputs.keys() == others.keys() and all(
        map(torch.equal, outputs.to_tuple(), others.to_tuple())
    )


def new(kind, **changes):
    """A model of fixed weights; stage 2's extractor learns with `freeze_mma=False`."""
    torch.manual_seed(0)
    backbone = {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 2],
        "layer_type": "basic",
    }
    config = MMAConfig(backbone_config=backbone, image_size=32)
    if kind == "tiny_mma":
        return MMAModel(config)
    settings = {"num_frames": 4, "hidden_size": 8, "dense_size": 6, **changes}
    return MMAMRNNetForIntensity(MMAMRNNetConfig(mma_config=config, **settings))


# transformers' common tests ------------------------------------------------------------------------------------------
#
# Their sources are in no package. These are their demands, by their names, in our words; the ones
# about text, attention, tied weights and other devices do not apply.

MODELS = (
    MMAModel,
    MMAForImageClassification,
    MMAMRNNetForIntensity,
    MMAMRNNetForVideoClassification,
)


class Case:
    """A class of ours with weights off their start, its inputs, and labels."""

    def __init__(self, model_class, folder):
        kind = "tiny_mma" if issubclass(model_class, MMAModel) else "tiny_model"
        self.config = new(kind, freeze_mma=False).config
        self.model_class, self.folder = model_class, folder
        self.model = shaken(model_class(self.config)).eval()
        self.inputs, self.labels = inputs_of(kind), labels_of(kind)
        if model_class is MMAForImageClassification:
            self.labels = {"labels": self.labels["expression_labels"]}

    def loaded(self, **settings):
        self.model.save_pretrained(self.folder)
        return self.model_class.from_pretrained(self.folder, **settings)

    def trained(self, *checkpointing):
        """The model after one backward pass in which every weight may learn."""
        model = copy.deepcopy(self.model).train()
        if checkpointing:
            model.gradient_checkpointing_enable(*checkpointing)
        model.requires_grad_(True)
        model(**self.inputs, **self.labels).loss.backward()
        assert all(each.grad is not None for each in model.parameters())

    def test_save_load(self):
        assert equal(self.loaded()(**self.inputs), self.model(**self.inputs))

    def test_save_load_keys_from_config(self):
        assert not any(self.loaded(output_loading_info=True)[1].values())

    def test_correct_missing_keys(self):
        self.model.save_pretrained(self.folder)
        weights = load_file(self.folder / "model.safetensors")
        gone = list(weights)[-1]
        del weights[gone]
        save_file(weights, self.folder / "model.safetensors", {"format": "pt"})
        info = self.model_class.from_pretrained(self.folder, output_loading_info=True)[1]
        assert info["missing_keys"] == {gone}

    def test_determinism(self):
        assert equal(self.model(**self.inputs), self.model(**self.inputs))

    def test_batching_equivalence(self):
        whole = self.model(**self.inputs).to_tuple()
        alone = self.model(**{name: value[:1] for name, value in self.inputs.items()}).to_tuple()
        assert all(torch.allclose(a[:1], b, atol=1e-5) for a, b in zip(whole, alone, strict=True))

    def test_model_outputs_equivalence(self):
        given = {**self.inputs, **self.labels}
        by_name, in_order = self.model(**given), self.model(**given, return_dict=False)
        assert isinstance(in_order, tuple)
        assert all(map(torch.equal, by_name.to_tuple(), in_order))

    def test_hidden_states_output(self):
        asked = self.model(**self.inputs, output_hidden_states=True).hidden_states
        self.model.config.output_hidden_states = True
        assert all(map(torch.equal, asked, self.model(**self.inputs).hidden_states))

    def test_retain_grad_hidden_states_attentions(self):
        output = self.model(**self.inputs, output_hidden_states=True)
        output.hidden_states[0].retain_grad()
        output[0].sum().backward()
        assert output.hidden_states[0].grad is not None

    def test_forward_signature(self):
        first = next(iter(inspect.signature(self.model.forward).parameters))
        assert first == self.model.main_input_name == "pixel_values"

    def test_training(self):
        self.trained()

    def test_training_gradient_checkpointing(self):
        self.trained(None)

    def test_training_gradient_checkpointing_use_reentrant_true(self):
        self.trained({"use_reentrant": True})

    def test_training_gradient_checkpointing_use_reentrant_false(self):
        self.trained({"use_reentrant": False})

    def test_gradient_checkpointing_enable_disable(self):
        assert self.model_class.supports_gradient_checkpointing
        for switch, on in (("enable", True), ("disable", False)):
            getattr(self.model, f"gradient_checkpointing_{switch}")()
            assert self.model.is_gradient_checkpointing == on

    def test_enable_input_require_grads(self):
        self.model.enable_input_require_grads()

    def test_model_get_set_embeddings(self):
        assert self.model.get_input_embeddings() is None
        assert self.model.get_output_embeddings() is None

    def test_keep_in_fp32_modules(self):
        half = self.loaded(dtype=torch.bfloat16)
        names = dict(half.state_dict())
        assert set(half._keep_in_fp32_modules_strict or ()) <= set(names)
        assert half(**self.inputs)[0].isfinite().all()

    def test_can_be_initialized_on_meta(self):
        with torch.device("meta"):
            model = self.model_class(self.config)
        assert all(each.is_meta for each in model.parameters())

    def test_load_with_mismatched_shapes(self):
        if self.model_class is MMAModel:
            pytest.skip("stage 1 has the seven expressions")
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            self.loaded(num_labels=3)
        other = self.loaded(num_labels=3, ignore_mismatched_sizes=True)
        assert other(**self.inputs).logits.shape == (3, 3)

    def test_config_save_load(self):
        self.config.save_pretrained(self.folder)
        assert plain(type(self.config).from_pretrained(self.folder)) == plain(self.config)


@pytest.mark.parametrize("model_class", MODELS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", [name for name in vars(Case) if name.startswith("test_")])
def test_what_transformers_asks_of_every_model_holds(name, model_class, tmp_path):
    getattr(Case(model_class, tmp_path), name)()


# Save and load -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    {
        "plain": {},
        "revision": {"revision": "main"},
        "device_map cpu": {"device_map": "cpu"},
        "device_map auto": {"device_map": "auto"},
        "device_map dict": {"device_map": {"": "cpu"}},
        "dtype auto": {"dtype": "auto"},
        "low_cpu_mem_usage": {"low_cpu_mem_usage": True},
        "local_files_only": {"local_files_only": True},
        "eager": {"attn_implementation": "eager"},
        "trust_remote_code": {"trust_remote_code": True},
    }.items(),
    ids=lambda how: how[0],
)
def test_from_pretrained_gives_the_same_bits_in_eval_mode_however_it_is_called(
    kind, model, how, tmp_path
):
    inputs = inputs_of(kind)
    model.save_pretrained(tmp_path / "folder")
    loaded = AutoModel.from_pretrained(tmp_path / "folder", cache_dir=tmp_path / "cache", **how[1])
    assert type(loaded) is type(model)
    assert not loaded.training
    assert equal(loaded(**inputs), model(**inputs))
    assert all(
        torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items()
    )


def test_a_subfolder_holds_model_config_and_processor(kind, model, tiny_processor, tmp_path):
    for each in (model, tiny_processor):
        each.save_pretrained(tmp_path / "inner")
    inputs = inputs_of(kind)
    assert equal(AutoModel.from_pretrained(tmp_path, subfolder="inner")(**inputs), model(**inputs))
    assert plain(AutoConfig.from_pretrained(tmp_path, subfolder="inner")) == plain(model.config)
    assert (
        AutoVideoProcessor.from_pretrained(tmp_path, subfolder="inner").to_dict()
        == tiny_processor.to_dict()
    )


def test_weights_in_shards_are_the_same(kind, model, tmp_path):
    inputs = inputs_of(kind)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert equal(type(model).from_pretrained(tmp_path)(**inputs), model(**inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, "bfloat16"])
def test_half_precision_takes_the_processors_float32_and_stays_close(kind, model, dtype, tmp_path):
    inputs = inputs_of(kind)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=dtype)
    assert {value.dtype for value in loaded.parameters()} == {
        getattr(torch, str(dtype).removeprefix("torch."))
    }
    seen, wanted = loaded(**inputs), model(**inputs)
    for half, full in zip(seen.to_tuple(), wanted.to_tuple(), strict=True):
        assert half.isfinite().all()
        assert (half.float() - full).abs().max() < 0.05


@pytest.mark.parametrize(
    "cast", [lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.bfloat16().float()]
)
def test_a_model_cast_later_stays_close(kind, model, cast):
    inputs = inputs_of(kind)
    wanted = model(**inputs).to_tuple()
    for seen, full in zip(cast(copy.deepcopy(model))(**inputs).to_tuple(), wanted, strict=True):
        assert seen.isfinite().all()
        assert (seen.float() - full).abs().max() < 0.05


def test_double_precision_differs_in_the_last_digits_alone(kind, model):
    inputs = inputs_of(kind)
    wanted = model(**inputs)[0]
    seen = copy.deepcopy(model).double()(**inputs)[0]
    assert seen.dtype == torch.float64
    assert (seen - wanted).abs().max() < 1e-5


def test_a_copy_and_a_pickle_give_the_same_bits(kind, model):
    inputs = inputs_of(kind)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert equal(other(**inputs), model(**inputs))
    assert equal(pickle.loads(pickle.dumps(model(**inputs))), model(**inputs))  # noqa: S301


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_attention_is_refused_in_transformers_own_words(model, attention, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{type(model).__name__} does not support"):
        AutoModel.from_pretrained(tmp_path, attn_implementation=attention)


def test_every_save_holds_code_and_auto_map(kind, model, tiny_processor, tmp_path):
    config_class, model_class = CLASSES[kind]
    for each in (model, tiny_processor):
        each.save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    module = "modeling_mma" if kind == "tiny_mma" else "modeling_mma_mrnnet"
    inputs, prefix = ("Image", "MMA") if kind == "tiny_mma" else ("Video", "MMAMRNNet")
    assert auto_map == {
        "AutoConfig": f"configuration_mma_mrnnet.{config_class.__name__}",
        "AutoModel": f"{module}.{model_class.__name__}",
        f"AutoModelFor{inputs}Classification": f"{module}.{prefix}For{inputs}Classification",
    }
    processor = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert processor["auto_map"] == {
        "AutoVideoProcessor": "video_processing_mma_mrnnet.MMAMRNNetVideoProcessor"
    }
    code = {path.stem for path in tmp_path.glob("*.py")}
    assert {
        "configuration_mma_mrnnet",
        module,
        "labels",
        "losses",
        "priors",
        "video_processing_mma_mrnnet",
    } <= code


def test_a_save_of_what_was_loaded_is_the_same_folder(model, tmp_path):
    model.save_pretrained(
        tmp_path / "0"
    )  # the config of a model that was never loaded does not name its dtype yet
    for number in (0, 1):
        loaded = AutoModel.from_pretrained(tmp_path / str(number), trust_remote_code=True)
        loaded.save_pretrained(tmp_path / str(number + 1))
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "12"
    )
    assert first == second
    assert first.keys() == {path.name for path in (tmp_path / "0").iterdir()}


def test_the_shipped_checkpoint_keeps_its_names_and_bits():
    weights = load_file(pretrained_folder() / "model.safetensors")
    model, info = MMAMRNNetForIntensity.from_pretrained(
        pretrained_folder(), output_loading_info=True
    )
    assert not any(info.values())
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in weights.items())


# Other targets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"id2label": {0: "joy", 1: "boredom"}}, ["joy", "boredom"]),
        (
            {"id2label": {0: "joy", 1: "boredom"}, "label2id": {"joy": 0, "boredom": 1}},
            ["joy", "boredom"],
        ),
    ],
)
def test_another_number_of_targets_starts_a_new_head_without_calibration(
    tiny_model, settings, names, tmp_path
):
    tiny_model.set_calibration(torch.full((7,), 2.0), torch.full((7,), 0.1))
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModel.from_pretrained(tmp_path, **settings)
    model = AutoModelForVideoClassification.from_pretrained(
        tmp_path, **settings, ignore_mismatched_sizes=True
    )
    assert model.config.label_names == names
    assert model.config.label2id == {name: index for index, name in enumerate(names)}
    assert not model.config.calibrated
    assert torch.equal(model.calibration_scale, torch.ones(len(names)))
    assert torch.equal(model.dense.weight, tiny_model.dense.weight)
    assert model(**inputs_of("tiny_model")).intensities.shape == (3, len(names))


@pytest.mark.parametrize("names", [{0: "joy", 1: "joy"}, {1: "joy", 2: "fear"}])
def test_targets_without_a_name_of_their_own_are_refused(names, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(
        StrictDataclassError, match="id2label must name the targets 0 to 1, each differently"
    ):
        AutoModel.from_pretrained(tmp_path, id2label=names, ignore_mismatched_sizes=True)
    with pytest.raises(
        StrictDataclassError, match="id2label must name the targets 0 to 1, each differently"
    ):
        MMAMRNNetConfig(id2label=names)


def test_other_names_for_the_same_targets_keep_weights_and_calibration(tiny_model, tmp_path):
    tiny_model.set_calibration(torch.full((7,), 0.5), torch.full((7,), 0.1))
    tiny_model.save_pretrained(tmp_path)
    names = dict(enumerate("abcdefg"))
    model = AutoModel.from_pretrained(tmp_path, id2label=names)
    assert (model.config.id2label, model.config.label2id["g"]) == (names, 6)
    assert model.config.calibrated
    inputs = inputs_of("tiny_model")
    assert equal(model(**inputs), tiny_model(**inputs))


def test_stage_1_says_that_its_expressions_are_seven(tiny_mma, tmp_path):
    tiny_mma.save_pretrained(tmp_path)
    wanted = r"names stage 1's 7 expressions, neutral, anger, .*; got [23] names"
    for settings in ({"num_labels": 3}, {"id2label": {0: "joy", 1: "boredom"}}):
        with pytest.raises(ValueError, match=wanted):
            AutoModel.from_pretrained(tmp_path, **settings, ignore_mismatched_sizes=True)
        with pytest.raises(ValueError, match=wanted):
            MMAMRNNetForIntensity(MMAMRNNetConfig(mma_config=MMAConfig(**settings)))
    german = dict(
        enumerate(["neutral", "Wut", "Ekel", "Angst", "Freude", "Trauer", "Überraschung"])
    )
    assert AutoModel.from_pretrained(tmp_path, id2label=german).config.label2id["Freude"] == 4


@pytest.mark.parametrize("names", [[*EXPRESSIONS, "contempt"], ["joy", "boredom", "pain"]])
def test_an_image_classifier_takes_any_number_of_classes(tiny_mma, names, tmp_path):
    tiny_mma.save_pretrained(tmp_path / "seven")
    model = AutoModelForImageClassification.from_pretrained(
        tmp_path / "seven", id2label=dict(enumerate(names)), ignore_mismatched_sizes=True
    )
    assert torch.equal(model.action_unit_head.weight, tiny_mma.action_unit_head.weight)
    pixels, labels = torch.rand(2, 3, 32, 32), torch.tensor([len(names) - 1, -100])
    output = model(pixels, labels=labels)
    assert output.logits.shape == (2, len(names))
    wanted = -output.logits[0].log_softmax(-1)[-1]  # the cross-entropy of the labelled row
    assert torch.allclose(output.loss, wanted)
    model.save_pretrained(tmp_path / "own")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "own")
    assert list(again.config.id2label.values()) == names
    assert torch.equal(again(pixels).logits, output.logits)


@pytest.mark.parametrize(
    "settings", [{}, {"distribution_matching": "off"}, {"num_labels": 3}], ids=str
)
def test_every_weight_of_an_image_classifier_gets_a_gradient(tiny_mma_config, settings):
    config = MMAConfig(backbone_config=tiny_mma_config.backbone_config, image_size=32, **settings)
    model = MMAForImageClassification(config).train()
    model(torch.rand(4, 3, 32, 32), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert not model.valence_arousal_head.weight.grad.any()
    assert model.expression_head.weight.grad.any()
    with pytest.raises(TypeError, match="forward does not know valence_arousal_labels"):
        model(torch.rand(1, 3, 32, 32), valence_arousal_labels=torch.rand(1, 2))


def test_settings_given_beside_a_checkpoint_are_checked_too(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(Exception, match="dropout must be"):
        AutoModel.from_pretrained(tmp_path, dropout=1.5)
    assert AutoModel.from_pretrained(tmp_path, dropout=0.5).dropout.p == 0.5


def test_intensities_are_no_classes(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(Exception, match="problem_type must be regression"):
        AutoModel.from_pretrained(tmp_path, problem_type="single_label_classification")


# Processors --------------------------------------------------------------------------------------------------------


def test_the_image_processor_of_a_stage_1_folder_scales_as_ours_does(
    tiny_mma, tiny_processor, tmp_path
):
    tiny_mma.save_pretrained(tmp_path)
    tiny_processor.image_processor().save_pretrained(tmp_path)
    crops = np.random.randint(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    for auto in (AutoImageProcessor, AutoProcessor):
        pixels = auto.from_pretrained(tmp_path)(list(crops), return_tensors="pt").pixel_values
        assert (pixels - tiny_processor.scale(crops)).abs().max() <= 1e-6


def test_a_stage_1_folder_saved_with_an_image_processor_alone_has_all_that_ours_needs(
    tiny_mma, tmp_path
):
    tiny_mma.save_pretrained(tmp_path)
    settings = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
    }
    ViTImageProcessor(**settings).save_pretrained(tmp_path)
    extractor, processor = load_extractor(tmp_path)
    assert type(processor) is MMAMRNNetVideoProcessor
    crops = np.random.randint(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert extractor(processor.scale(crops)).affect.shape == (2, 26)


def test_a_processed_batch_can_be_cast_and_keeps_its_mask(tiny_model, tiny_processor):
    clip = np.random.randint(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    batch = tiny_processor(clip, return_tensors="pt").to(torch.bfloat16)
    assert {name: value.dtype for name, value in batch.items()} == {
        "pixel_values": torch.bfloat16,
        "frame_mask": torch.bool,
    }
    assert tiny_model(**batch).intensities.isfinite().all()


# Weights that a checkpoint lacks -----------------------------------------------------------------------------------


def test_whatever_is_missing_is_initialised_named_and_finite(kind, model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = {name for index, name in enumerate(sorted(weights)) if index % 3 == 0}
    save_file(
        {n: v for n, v in weights.items() if n not in lost},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == lost
    for name, value in loaded.state_dict().items():
        assert value.isfinite().all(), name
        if name in lost:
            assert value.abs().max() < 10, name  # neither left over memory nor the checkpoint's
            if name.startswith("calibration_"):
                continue
            if name.endswith(("running_var", "normalization.weight")):
                assert torch.equal(value, torch.ones_like(value)), name
            elif name.endswith(("running_mean", "bias", "num_batches_tracked")):
                assert not value.any(), name
        elif not name.startswith("calibration_"):
            assert torch.equal(value, weights[name]), name
    if (
        kind == "tiny_model"
    ):  # a calibration of weights that are gone is dropped, be it there or not
        assert torch.equal(loaded.calibration_scale, torch.ones(7))
        assert not loaded.calibration_shift.any()
    assert loaded(**inputs_of(kind))[0].isfinite().all()


def test_a_model_made_on_meta_takes_a_state_dict(kind, model):
    with torch.device("meta"):
        empty = type(model)(model.config)
    assert {value.device.type for value in empty.state_dict().values()} == {"meta"}
    empty.load_state_dict(model.state_dict(), assign=True)
    inputs = inputs_of(kind)
    assert equal(empty.eval()(**inputs), model(**inputs))


def test_the_seed_decides_on_new_weights(kind):
    first, second = new(kind).state_dict(), new(kind).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


# Outputs -----------------------------------------------------------------------------------------------------------


def test_pixel_values_come_first_and_are_the_main_input(model):
    assert (
        next(iter(inspect.signature(model.forward).parameters))
        == model.main_input_name
        == "pixel_values"
    )


def test_two_calls_give_the_same_bits(kind, model):
    inputs = inputs_of(kind)
    assert equal(model(**inputs), model(**inputs))


def test_a_row_does_not_depend_on_the_others(kind, model):
    inputs = inputs_of(kind)
    together = model(**inputs)
    alone = model(**{name: value[1:2] for name, value in inputs.items()})
    for one, all_rows in zip(alone.to_tuple(), together.to_tuple(), strict=True):
        assert torch.allclose(one, all_rows[1:2], atol=1e-5)


def test_a_tuple_holds_what_the_output_holds(kind, model):
    inputs = {**inputs_of(kind), **labels_of(kind), "output_hidden_states": True}
    output = model(**inputs)
    assert next(iter(output)) == "loss"
    given = model(**inputs, return_dict=False)
    model.config.return_dict = False
    by_config = model(**inputs)
    for seen in (given, by_config, output.to_tuple()):
        assert isinstance(seen, tuple)
        assert torch.equal(seen[0], output.loss)
        assert torch.equal(seen[1], output[1])
        assert len(seen) == len(output.to_tuple())


def test_an_extractor_that_gives_tuples_does_so_for_its_caller_alone(tiny_model):
    inputs = inputs_of("tiny_model")
    wanted = tiny_model(**inputs)
    tiny_model.mma.config.return_dict = False
    assert equal(tiny_model(**inputs), wanted)


def test_hidden_states_come_by_argument_and_by_config(kind, model, tmp_path):
    inputs = inputs_of(kind)
    count = 3 if kind == "tiny_mma" else 1  # the stem and two stages; the masked GRU
    assert model(**inputs).hidden_states is None
    assert len(model(**inputs, output_hidden_states=True).hidden_states) == count
    model.save_pretrained(tmp_path)
    asked = AutoModel.from_pretrained(tmp_path, output_hidden_states=True)
    assert len(asked(**inputs).hidden_states) == count
    assert asked(**inputs, output_hidden_states=False).hidden_states is None


# Parameters --------------------------------------------------------------------------------------------------------


def test_names_are_todays_and_no_tensor_is_there_twice(model):
    names = list(model.state_dict())
    assert not [name for name in names if "gamma" in name or "beta" in name]
    assert len({value.data_ptr() for value in model.parameters()}) == len(list(model.parameters()))
    assert all(value.is_contiguous() for value in model.parameters())


def test_parameters_are_counted(model):
    assert model.num_parameters() == sum(value.numel() for value in model.parameters())
    learning = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert model.num_parameters(only_trainable=True) == learning
    assert (learning < model.num_parameters()) == (
        model.config.model_type == "mma_mrnnet"
    )  # a fixed extractor
    assert model.get_memory_footprint() > 4 * model.num_parameters()


def test_a_device_map_cuts_no_extractor_and_no_recurrence_in_two(tiny_model):
    inside = sum(value.nbytes for value in tiny_model.mma.state_dict().values())
    plan = infer_auto_device_map(
        tiny_model,
        max_memory={0: inside // 2, "cpu": 10**9},
        no_split_module_classes=list(tiny_model._no_split_modules),
        offload_buffers=True,
    )
    assert {"mma", "rnn"} <= plan.keys() or set(plan) == {""}
    assert not [name for name in plan if name.startswith(("mma.", "rnn."))]


def plain(config):
    """Its fields, without what saving and loading add."""
    added = {"auto_map", "transformers_version", "_name_or_path"}
    return {name: value for name, value in config.to_dict().items() if name not in added}


# Configs -----------------------------------------------------------------------------------------------------------


def test_a_config_comes_back_whole_by_every_road(kind, model, tmp_path):
    config, config_class = model.config, CLASSES[kind][0]
    assert json.loads(config.to_json_string())["model_type"] == config.model_type
    config.to_json_file(tmp_path / "alone.json")
    config.save_pretrained(tmp_path / "inner")
    for again in (
        config_class.from_json_file(tmp_path / "alone.json"),
        config_class.from_pretrained(tmp_path / "inner"),
        config_class.from_pretrained(tmp_path, subfolder="inner"),
        AutoConfig.from_pretrained(tmp_path / "inner"),
        config_class.from_dict(config.to_dict()),
        copy.deepcopy(config),
    ):
        assert type(again) is config_class
        assert plain(again) == plain(config)
    assert config_class().to_diff_dict().keys() <= config_class().to_dict().keys()


def test_auto_config_knows_both_by_name(kind):
    config_class, model_class = CLASSES[kind]
    assert type(AutoConfig.for_model(config_class.model_type)) is config_class
    assert AutoConfig.for_model("mma", image_size=64).image_size == 64
    config = new(kind).config
    assert type(AutoModel.from_config(config)) is model_class
    assert AutoModel.from_config(config, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_the_extractors_config_loads_out_of_a_stage_2_folder(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    inner = MMAConfig.from_pretrained(tmp_path)
    assert type(inner) is MMAConfig
    assert inner.backbone_config.hidden_sizes == [8, 16]
    assert (inner.image_size, inner.action_units) == (32, tiny_model.config.mma_config.action_units)


def test_a_part_of_the_nested_config_can_be_changed_in_the_call(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    changed = AutoConfig.from_pretrained(tmp_path, mma_config={"dropout": 0.25})
    assert (changed.mma_config.dropout, changed.mma_config.image_size) == (0.25, 32)


# Training ----------------------------------------------------------------------------------------------------------


def test_a_few_steps_lower_the_loss(kind):
    model = new(kind).train()
    batch = {**inputs_of(kind, 6), **labels_of(kind, 6)}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(8):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def trained_twice(kind, enable, **changes):
    """Loss, gradients and buffers after two forward and backward passes in training mode."""
    model = new(kind, **changes).train()
    enable(model)
    torch.manual_seed(1)
    batch = {**inputs_of(kind), **labels_of(kind)}
    for _ in range(2):
        loss = model(**batch).loss
        loss.backward()
    gradients = {
        name: value.grad for name, value in model.named_parameters() if value.grad is not None
    }
    return {"loss": loss.detach(), **gradients, **dict(model.named_buffers())}


@pytest.mark.parametrize("reentrant", [None, False, True])
@pytest.mark.parametrize(
    ("kind", "frozen"), [("tiny_mma", False), ("tiny_model", False), ("tiny_model", True)]
)
def test_checkpointing_changes_no_bit_of_loss_gradients_and_running_statistics(
    kind, frozen, reentrant
):
    given = () if reentrant is None else ({"use_reentrant": reentrant},)
    plain = trained_twice(kind, lambda model: None, freeze_mma=frozen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of the two names is on its way out
        for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
            again = trained_twice(
                kind, lambda model, name=name: getattr(model, name)(*given), freeze_mma=frozen
            )
            assert plain.keys() == again.keys()
            assert all(torch.equal(value, again[name]) for name, value in plain.items())
    tracked = next(value for name, value in again.items() if name.endswith("num_batches_tracked"))
    assert tracked == (0 if frozen else 2)  # once a forward pass, though computed twice


def test_checkpointing_computes_every_stage_twice_until_it_is_disabled():
    model = new("tiny_mma").train()
    assert model.supports_gradient_checkpointing
    assert new("tiny_model").supports_gradient_checkpointing
    of_tables = MMAMRNNetForIntensity(MMAMRNNetConfig(feature_names=["a"], num_frames=4))
    with pytest.raises(ValueError, match="does not support"):
        of_tables.gradient_checkpointing_enable()
    calls = [0] * 2
    for index, stage in enumerate(model.backbone.encoder.stages):
        first = stage.layers[0].layer[0].convolution
        first.register_forward_hook(
            lambda *_, index=index: calls.__setitem__(index, calls[index] + 1)
        )
    batch = {**inputs_of("tiny_mma"), **labels_of("tiny_mma")}
    for switch, wanted in (
        (lambda: None, [1, 1]),
        (model.activation_checkpointing_enable, [2, 2]),
        (lambda: model.activation_checkpointing_enable(every_n_layers=2), [2, 1]),
        (model.activation_checkpointing_disable, [1, 1]),
    ):
        switch()
        calls[:] = 0, 0
        model(**batch).loss.backward()
        assert calls == wanted


def test_a_checkpointed_backbone_is_transformers_own_in_names_and_numbers(tiny_mma):
    own = ResNetModel(tiny_mma.config.backbone_config).eval()
    own.load_state_dict(tiny_mma.backbone.state_dict())
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(own(pixels).pooler_output, tiny_mma.backbone(pixels).pooler_output)
    assert list(own.state_dict()) == list(tiny_mma.backbone.state_dict())


def test_freezing_and_unfreezing_the_extractor_is_remembered(tiny_model, tmp_path):
    for switch, frozen in ((tiny_model.unfreeze_mma, False), (tiny_model.freeze_mma, True)):
        switch()
        tiny_model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path).train()
        assert loaded.config.freeze_mma == frozen
        assert {value.requires_grad for value in loaded.mma.parameters()} == {not frozen}
        assert loaded.mma.training != frozen


# Other machinery of torch ------------------------------------------------------------------------------------------


def test_dynamic_int8_stays_close(kind, model):
    inputs = inputs_of(kind)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch's own tool, deprecated and still what people reach for
        small = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(model), {torch.nn.Linear, torch.nn.GRU}, dtype=torch.qint8
        )
        seen = small(**inputs)[0]
    assert not torch.equal(seen, model(**inputs)[0])
    assert (seen - model(**inputs)[0]).abs().max() < 0.05


def test_autocast_stays_close(kind, model):
    inputs = inputs_of(kind)
    wanted = model(**inputs)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(**inputs)[0].float() - wanted).abs().max() < 0.05


@pytest.mark.slow
def test_a_compiled_model_is_one_graph_and_gives_the_same_bits(kind, model):
    inputs = inputs_of(kind)
    if kind == "tiny_model":
        inputs["pixel_values"][~inputs["frame_mask"]] = torch.nan
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        seen = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs)
        assert equal(seen, model(**inputs))


@pytest.mark.slow
def test_an_exported_model_gives_the_same_bits_for_other_masks(kind, model):
    inputs = inputs_of(kind)
    with torch.no_grad():
        exported = torch.export.export(model, (), kwargs=inputs).module()
        if kind == "tiny_model":
            inputs["frame_mask"] = torch.arange(4) < torch.tensor([[1], [4], [0]])
        assert equal(exported(**inputs), model(**inputs))


def test_there_are_no_embeddings_and_tools_that_ask_are_told_so(model):
    assert model.get_input_embeddings() is None
    model.enable_input_require_grads()  # PEFT's and checkpointing's; transformers warns


def test_weights_that_are_to_learn_inside_a_fixed_extractor_are_named(tiny_model):
    inputs = inputs_of("tiny_model")
    tiny_model.train().mma.expression_head.weight.requires_grad_(True)  # as LoRA's do
    with pytest.raises(ValueError, match=r"so mma\.expression_head\.weight .*unfreeze_mma\(\)"):
        tiny_model(**inputs)
    assert tiny_model.eval()(**inputs).intensities.isfinite().all()
    tiny_model.unfreeze_mma()
    assert tiny_model.train()(**inputs).intensities.isfinite().all()


def test_the_scaling_of_features_stays_exact_in_half_precision(tiny_config, tmp_path):
    model = MMAMRNNetForIntensity(MMAMRNNetConfig(feature_names=["a", "b"], num_frames=4))
    model.set_feature_scaling(torch.tensor([600.5, 0.1]), torch.tensor([3.3, 1.0]))
    model.save_pretrained(tmp_path)
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(loaded.feature_mean, model.feature_mean)
    assert loaded.feature_mean.dtype == torch.float32
    for each in (loaded, MMAMRNNetForIntensity(tiny_config)):
        assert all(hasattr(each, name) for name in each._keep_in_fp32_modules_strict)


# Offloaded weights -----------------------------------------------------------------------------


@pytest.fixture
def calibrated(tiny_model, tmp_path):
    """A folder with a calibrated checkpoint, inputs of it, and its intensities."""
    count = len(tiny_model.config.label_names)
    tiny_model.set_calibration(torch.linspace(0.5, 0.9, count), torch.full((count,), 0.05))
    tiny_model.save_pretrained(tmp_path / "calibrated")
    affect = torch.rand(2, 3, tiny_model.config.input_size)
    with torch.no_grad():
        return tmp_path / "calibrated", affect, tiny_model.eval()(affect=affect).intensities


def test_weights_offloaded_to_disk_keep_the_calibration(calibrated, tmp_path):
    folder, affect, expected = calibrated
    model = MMAMRNNetForIntensity.from_pretrained(
        folder, device_map={"": "disk"}, offload_folder=tmp_path / "offload"
    )
    assert model.config.calibrated
    with torch.no_grad():
        assert torch.equal(model.eval()(affect=affect).intensities, expected)


PARTS = ("rnn", "dense", "dropout", "output", "calibration_scale", "calibration_shift")


@pytest.mark.parametrize("device_map", ["auto", {"mma": "disk", **dict.fromkeys(PARTS, "cpu")}])
def test_load_checkpoint_and_dispatch_keeps_the_calibration(calibrated, device_map, tmp_path):
    folder, affect, expected = calibrated
    with init_empty_weights():
        empty = MMAMRNNetForIntensity(MMAMRNNetConfig.from_pretrained(folder))
    assert not empty.config.calibrated  # its weights are not there yet
    model = load_checkpoint_and_dispatch(
        empty,
        str(folder / "model.safetensors"),
        device_map=device_map,
        offload_folder=tmp_path / "offload",
    )
    assert model.eval().config.calibrated
    with torch.no_grad():
        assert torch.equal(model(affect=affect).intensities, expected)


def test_a_new_model_of_a_calibrated_config_is_not_calibrated(calibrated):
    model = MMAMRNNetForIntensity(MMAMRNNetConfig.from_pretrained(calibrated[0]))
    assert not model.eval().config.calibrated


# Keywords --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frames_mask", "attention_mask", "pixel_value"])
def test_a_keyword_that_forward_does_not_know_is_refused(tiny_model, name):
    affect = torch.rand(1, 3, tiny_model.config.input_size)
    mask = torch.ones(1, 3, dtype=torch.bool)
    accepted = "pixel_values, affect, frame_mask, labels, output_hidden_states"
    for model in (tiny_model, MMAMRNNetForVideoClassification(tiny_model.config).eval()):
        with pytest.raises(TypeError, match=rf"{name}.*accepted are {accepted}"):
            model(affect=affect, **{name: mask})


def test_a_keyword_that_the_extractor_does_not_know_is_refused(tiny_mma_config):
    size = tiny_mma_config.image_size
    crops = torch.zeros(1, 3, size, size)
    for model in (MMAModel(tiny_mma_config), MMAForImageClassification(tiny_mma_config)):
        with pytest.raises(TypeError, match=r"bool_masked_pos.*accepted are pixel_values"):
            model(crops, bool_masked_pos=None)


def test_keywords_that_transformers_itself_passes_are_accepted(tiny_model):
    affect = torch.rand(1, 3, tiny_model.config.input_size)
    tiny_model(affect=affect, return_dict=True, output_attentions=False, num_items_in_batch=1)
    tiny_model(affect=affect, use_cache=False, return_loss=True)


# Pickled weights -------------------------------------------------------------------------------


def test_weights_in_a_pickle_are_not_read(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_model.state_dict(), tmp_path / "pytorch_model.bin")
    for load in (MMAMRNNetForIntensity.from_pretrained, MMAModel.from_pretrained):
        with pytest.raises(OSError, match="safetensors"):
            load(tmp_path)
    with pytest.raises(CheckpointError, match="safetensors") as refused:
        load_checkpoint(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", ["index", "config"])
def test_an_index_or_config_that_names_a_pickle_is_refused(tiny_model, tmp_path, how):
    tiny_model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    names = list(tiny_model.state_dict())
    torch.save(tiny_model.state_dict(), tmp_path / "weights-1.bin")
    weights.unlink()
    if how == "index":
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, "weights-1.bin")}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        config = json.loads((tmp_path / "config.json").read_text())
        config["transformers_weights"] = "weights-1.bin"
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((ValueError, OSError), match="safetensors"):
        MMAMRNNetForIntensity.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="safetensors") as refused:
        load_checkpoint(tmp_path)
    assert "\n" not in str(refused.value)


# Bad configs -----------------------------------------------------------------------------------

NAMES = {str(number): f"target {number}" for number in range(7)}


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("stage 2", {"id2label": ["joy"]}, r"id2label must be an object .*got \['joy'\]"),
        ("stage 2", {"id2label": 7}, "id2label must be an object .*got 7"),
        ("stage 2", {"id2label": {**NAMES, "3": 3}}, "id2label must hold texts; got 3"),
        ("stage 2", {"id2label": {**NAMES, "3": "a\ud800"}}, r"half characters; got 'a\\ud800'"),
        ("stage 2", {"id2label": {**NAMES, "3": "\x1b]0;x"}}, r"control .*; got '\\x1b\]0;x'"),
        ("stage 2", {"id2label": None, "num_labels": 10**7}, "num_labels may be at most 10000"),
        ("stage 2", {"num_hidden_layers": 10**4}, "num_hidden_layers may be at most 1000"),
        ("stage 2", {"hidden_size": 10**4}, "hidden_size may be at most 4096"),
        ("stage 2", {"hidden_size": 4000, "num_hidden_layers": 20}, "parameters of stage 2 may be"),
        ("stage 2", {"num_frames": 10**9}, "num_frames may be at most"),
        ("stage 2", {"quantization_config": "4 bits"}, "cannot|can be|not a checkpoint"),
        ("stage 2", {"dtype": "float7"}, "float7"),
        ("stage 1", {"image_size": 10**6}, "image_size may be at most"),
        ("stage 1", {"action_units": [-1, 2]}, r"1 to 999.*got \[-1, 2\]"),
        ("stage 1", {"backbone_config": {"model_type": "vit"}}, "must be one of resnet; got 'vit'"),
        ("backbone", {"depths": [10**4, 1]}, "depths of backbone_config.* may be at most"),
        ("backbone", {"hidden_sizes": [10**6, 10**6]}, "parameters of backbone_config may be"),
    ],
)
def test_a_bad_config_is_refused_in_one_line_before_memory_is_spent(
    tiny_model, tiny_processor, tmp_path, part, fields, message
):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    stage1 = config["mma_config"]
    {"stage 2": config, "stage 1": stage1, "backbone": stage1["backbone_config"]}[part].update(
        fields
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as refused:
        load_checkpoint(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"height": 10**4, "width": 10**4}}, "size of the processor must be 1 to 2048"),
        ({"num_frames": 0}, "num_frames of the processor must be 1 to"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std must be finite and not 0"),
    ],
)
def test_a_bad_processor_is_refused_in_one_line(
    tiny_model, tiny_processor, tmp_path, fields, message
):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    place = tmp_path / "video_preprocessor_config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **fields}))
    with pytest.raises(CheckpointError, match=message) as refused:
        load_checkpoint(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_processor_file_that_is_no_object_is_refused(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "video_preprocessor_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not a checkpoint that can be loaded"):
        load_checkpoint(tmp_path)


def test_weights_that_are_not_finite_are_refused(tiny_model, tiny_processor, tmp_path):
    with torch.no_grad():
        tiny_model.dense.weight[0, 0] = float("nan")
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"dense\.weight holds NaN or infinite weights"):
        load_checkpoint(tmp_path)
