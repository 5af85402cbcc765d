"""Models on disk: a round trip changes no bit, borrowed models load from folders, and nothing is ever unpickled."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fuserank import config
from fuserank.errors import ModelError
from fuserank.models.build import build_model
from fuserank.models.checkpoint import load_model, load_weights, save_model, save_weights
from fuserank.models.encoders.image import ImageEncoder
from fuserank.models.encoders.text import TextEncoder
from fuserank.models.fused import FusedModel
from fuserank.models.fusion import FUSIONS
from fuserank.models.recommender import UNKNOWN

EDGES, KNOWN = [1.0, 2.0, 3.0], 7
INPUTS: dict[str, dict[str, torch.Tensor]] = {
    "text": {
        "input_ids": torch.tensor([[2, 7, 9, 3], [2, 5, 3, 0]]),
        "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
    },
    "image": {"pixels": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)},
    "audio": {"mel": torch.randn(2, 8, 24)},
    "price": {"log_price": torch.tensor([0.5, 2.5])},
    "attributes": {"attribute_ids": torch.tensor([[1, 5, 7], [3, 0, 0]])},
}


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield
    patch.undo()


def build(kind: str = "gated", **encoders: Any) -> FusedModel:
    torch.manual_seed(0)
    small = {"text": {"layers": 1, "hidden": 16, "heads": 2}, "audio": {"channels": 8}, "recommender": {"layers": 1}}
    experiment = config.validate({"encoders": {**small, **encoders}, "fusion": {"kind": kind, "width": 16}})
    return build_model(experiment.encoders, experiment.fusion, 40, 12, 8, EDGES, KNOWN)


def answers(model: FusedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        vectors = torch.stack([model.encode(m, INPUTS[m]) for m in model.modalities], 1)
        mask = torch.ones(vectors.shape[:2], dtype=torch.bool)
        mask[1, 0] = False
        return torch.cat([model.product_vectors(vectors, mask), model.query_vectors(vectors, mask)])


def same_after_a_round_trip(model: FusedModel, folder: Path) -> FusedModel:
    save_model(model, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    before, torch_state = answers(model), torch.get_rng_state()
    loaded = load_model(folder)
    assert not loaded.training
    assert torch.equal(answers(loaded), before)
    assert loaded.description == json.loads(json.dumps(model.description))
    torch.set_rng_state(torch_state)
    return loaded


@pytest.mark.parametrize("kind", FUSIONS)
def test_round_trip_of_every_fusion(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    loaded = same_after_a_round_trip(model, tmp_path / "model")
    assert loaded.recommender is not None
    assert model.recommender is not None
    rows, mask = torch.randn(2, 3, model.out_width), torch.tensor([[True] * 3, [True, False, False]])
    types, gaps = torch.tensor([[1, 2, 4], [1, 0, 0]]), torch.tensor([[0.0, 70.0, 9e5], [0.0, 0, 0]])
    both = [m.recommender.eval() for m in (model, loaded)]  # type: ignore[union-attr]
    users = [r.user_vectors(r.table(rows, torch.full((2, 3), UNKNOWN)), types, gaps, mask) for r in both]
    assert torch.equal(*users)


def test_no_recommender_and_few_modalities(tmp_path: Path) -> None:
    model = build(audio=None, price=None, attributes=None, recommender=None)
    assert model.modalities == ("text", "image")
    assert same_after_a_round_trip(model, tmp_path / "model").recommender is None


def test_a_shop_without_attributes_gets_no_attributes_encoder() -> None:
    experiment = config.validate({"encoders": {"recommender": None}})
    assert experiment.encoders.attributes is not None
    for known, expected in ((0, ()), (3, ("attributes",))):
        model = build_model(experiment.encoders, experiment.fusion, 40, 12, 8, EDGES, known)
        assert model.modalities == ("text", "image", "audio", "price", *expected)


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, ViTConfig, ViTForImageClassification, ViTModel

    folder, numbers = tmp_path_factory.mktemp("borrowed"), {"num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(3)
    bert = BertConfig(vocab_size=40, hidden_size=24, intermediate_size=32, max_position_embeddings=16, **numbers)
    BertModel(bert).save_pretrained(folder / "bert")
    BertModel(bert).to(torch.bfloat16).save_pretrained(folder / "half")  # type: ignore[arg-type]
    vit = ViTConfig(hidden_size=24, intermediate_size=32, image_size=32, patch_size=8, **numbers)
    ViTModel(vit).save_pretrained(folder / "vit")
    ViTForImageClassification(vit).save_pretrained(folder / "classifier")
    return folder


def test_bert_from_a_folder(borrowed: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    model = build(text={"model": str(borrowed / "bert"), "pooling": "cls"})
    original = BertModel.from_pretrained(borrowed / "bert").eval()
    with torch.no_grad():
        expected = original(**INPUTS["text"]).last_hidden_state[:, 0]
        torch.testing.assert_close(model.eval().hidden("text", INPUTS["text"]), expected)
    same_after_a_round_trip(model, tmp_path / "model")


def test_a_half_precision_checkpoint_computes_in_float32(borrowed: Path, tmp_path: Path) -> None:
    model = build(text={"model": str(borrowed / "half")})
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    loaded = same_after_a_round_trip(model, tmp_path / "model")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["vit", "classifier"])
def test_vision_transformer_from_a_folder(borrowed: Path, name: str, tmp_path: Path) -> None:
    model = build(image={"model": str(borrowed / name)})
    encoder = model.encoders["image"]
    assert isinstance(encoder, ImageEncoder)
    again = ImageEncoder(str(borrowed / name)).eval()  # a pooler the checkpoint lacks would be random, other each time
    with torch.no_grad():
        assert torch.equal(again(INPUTS["image"]["pixels"]), encoder.eval()(INPUTS["image"]["pixels"]))
    same_after_a_round_trip(model, tmp_path / "model")


def test_a_vision_transformer_says_which_size_it_takes(borrowed: Path) -> None:
    for encoder in (ImageEncoder(str(borrowed / "vit")), ImageEncoder("vit_b_16")):
        assert encoder.train().training
        size = 32 if encoder.architecture else 224
        encoder.check_size(size, size)
        assert encoder.training
        with pytest.raises(ModelError, match=r"no pictures of 48 x 40 pixels") as told:
            encoder.check_size(48, 40)
        assert told.value.hint == f"Set preprocess.image_size to [{size}, {size}]."
    ImageEncoder("resnet18").check_size(48, 40)


def test_a_vision_folder_says_how_its_pictures_are_scaled(borrowed: Path, tmp_path: Path) -> None:
    shutil.copytree(borrowed / "vit", tmp_path / "vit")
    asked = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(asked))
    model = build(image={"model": str(tmp_path / "vit")}).eval()
    pixels = INPUTS["image"]["pixels"].float() / 255
    mean, spread = (torch.tensor(asked[name]).view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    encoder = model.encoders["image"]
    with torch.no_grad():
        out = encoder.backbone(pixel_values=(pixels - mean) / spread)  # type: ignore[operator]
        expected = out.last_hidden_state.mean(1) if out.pooler_output is None else out.pooler_output
        torch.testing.assert_close(encoder(INPUTS["image"]["pixels"]), expected)
    same_after_a_round_trip(model, tmp_path / "model")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_weights_from_a_file(name: str, tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(4)
    original = models.get_model(name, weights=None)
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    model = build(image={"model": name, "weights": str(tmp_path / "w.safetensors")})
    encoder = model.encoders["image"].eval()
    original.fc = nn.Identity()
    scaled = (INPUTS["image"]["pixels"].float() / 255 - encoder.mean) / encoder.spread
    with torch.no_grad():
        expected = original.eval()(scaled)
        torch.testing.assert_close(encoder(INPUTS["image"]["pixels"]), expected, atol=1e-4, rtol=1e-3)
    same_after_a_round_trip(model, tmp_path / "model")


def refused(error: pytest.ExceptionInfo[ModelError], *words: str) -> None:
    assert error.value.hint, "a remedy"
    for word in words:
        assert word in error.value.message


def pickled(source: Path, folder: Path) -> Path:
    """The same checkpoint as a pickle that leaves a mark when it is opened."""
    folder.mkdir()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"cbuiltins\nopen\n(V" + str(folder / "mark").encode() + b"\nVw\ntR.")
    return folder


def test_pickles_are_refused_unopened(borrowed: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        TextEncoder({}, pretrained=str(pickled(borrowed / "bert", tmp_path / "text")))
    refused(error, "text")
    with pytest.raises(ModelError) as error:
        ImageEncoder(str(pickled(borrowed / "vit", tmp_path / "vision")))
    refused(error, "vision")
    weights = pickled(borrowed / "vit", tmp_path / "weights") / "pytorch_model.bin"
    with pytest.raises(ModelError) as error:
        ImageEncoder("resnet18", str(weights))
    refused(error, str(weights))
    assert not list(tmp_path.glob("*/mark"))
    pickle.loads(weights.read_bytes()).close()
    assert list(tmp_path.glob("*/mark")), "the trap would have sprung"


def test_bad_folders_and_weights(borrowed: Path, tmp_path: Path) -> None:
    for make in (lambda path: TextEncoder({}, pretrained=path), lambda path: ImageEncoder(path)):
        for folder in ("nowhere", "empty"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            with pytest.raises(ModelError) as error:
                make(str(tmp_path / folder))
            refused(error, folder)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_bytes((borrowed / "bert" / "config.json").read_bytes())
    whole = (borrowed / "bert" / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError) as error:
        TextEncoder({}, pretrained=str(damaged))
    refused(error, "damaged")
    save_file({"embeddings.LayerNorm.bias": torch.zeros(24)}, damaged / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as error:  # left to itself the library would fill the rest with random numbers
        TextEncoder({}, pretrained=str(damaged))
    refused(error, "lacks", "weights")
    save_file({"fc.bias": torch.zeros(3)}, tmp_path / "other.safetensors")
    for file in ("other.safetensors", "absent.safetensors"):
        with pytest.raises(ModelError) as error:
            ImageEncoder("resnet18", str(tmp_path / file))
        refused(error, file)


def test_bad_model_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        load_model(tmp_path)
    refused(error, "config.json")
    model = build(image=None, recommender=None)
    save_model(model, tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(ModelError) as error:
        load_model(tmp_path)
    refused(error, "model.safetensors")
    save_weights(build(image=None, recommender=None, price={"frequencies": 2}), tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as error:
        load_model(tmp_path)
    refused(error, "model.safetensors", "smooth.0.weight")
    for wrong in ({}, {**description, "kind": None}, {**description, "encoders": {"price": {"edges": []}}}, [], "{"):
        (tmp_path / "config.json").write_text(wrong if isinstance(wrong, str) else json.dumps(wrong))
        with pytest.raises(ModelError) as error:
            load_model(tmp_path)
        refused(error, "config.json")
    with pytest.raises(ModelError) as error:
        load_weights(model, tmp_path / "gone.safetensors")
    refused(error, "gone.safetensors")


def test_only_the_encoders_asked_for(tmp_path: Path) -> None:
    """A serving replica builds the encoder it runs; all else is as in the whole model."""
    model = build().eval()
    model.projections["text"][0].center.uniform_(-1, 1)
    save_model(model, tmp_path)
    for wanted in ((), ("text",), ("image", "price")):
        part = load_model(tmp_path, wanted)
        assert part.modalities == model.modalities
        for modality in model.modalities:
            if modality in wanted:
                with torch.no_grad():
                    found = [m.encode(modality, INPUTS[modality]) for m in (part, model)]
                assert torch.equal(*found)
            else:
                assert not list(part.encoders[modality].parameters())
        vectors, mask = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
        assert torch.equal(part.query_vectors(vectors, mask), model.query_vectors(vectors, mask))
        assert torch.equal(part.product_vectors(vectors, mask), model.product_vectors(vectors, mask))
