"""The classic set-up of configs/article.yaml, BERT + ResNet-50 + price, on small weights saved in the same formats:
a Hugging Face folder with its tokenizer, and a torchvision state dict as safetensors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fuserank import config
from fuserank.models.checkpoint import load_model
from fuserank.records.synthetic.shop import write_shop
from workloads import index, preprocess, pretrain, train

ARTICLE = Path(__file__).resolve().parents[2] / "workloads" / "configs" / "article.yaml"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A folder with `bert/` (model and tokenizer) and `resnet50.safetensors`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from torchvision.models import resnet50
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("weights")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.-", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789")]
    vocabulary = {token: place for place, token in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder / "bert")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder / "bert")
    save_file(resnet50(weights=None).state_dict(), folder / "resnet50.safetensors")
    return folder


@pytest.mark.prove
@pytest.mark.timeout(400)
def test_article_config_trains_and_indexes_from_saved_weights(ray_cluster, weights, tmp_path):
    write_shop(tmp_path / "data", products=100, users=10, queries=40, seed=3, with_speech=False)
    sets = [
        f"storage.root={tmp_path / 'runs'}",
        f"records.root={tmp_path / 'data'}",
        f"preprocess.tokenizer={weights / 'bert'}",
        f"encoders.text.model={weights / 'bert'}",
        f"encoders.image.weights={weights / 'resnet50.safetensors'}",
        "preprocess.image_size=[32, 32]",
        "train.epochs=1",
        "train.batch_size=25",
    ]
    experiment = config.load(ARTICLE, sets)
    for stage in (preprocess, pretrain, train, index):
        manifest = stage.run(experiment)
    assert manifest["summary"]["products"] == 100
    model = load_model(experiment.run / "train" / "model")
    assert model.modalities == ("text", "image", "price")
    assert model.description["encoders"]["text"]["architecture"]["hidden_size"] == 32
    state = model.encoders.state_dict()
    before = load_file(weights / "bert" / "model.safetensors")["embeddings.word_embeddings.weight"]
    after = state["text.backbone.embeddings.word_embeddings.weight"]
    assert after.shape == before.shape
    moved = (after - before).abs().max().item()
    assert 0 < moved < 1e-2, "training at 2e-5 starts from the saved weights and moves them a little"
    stem = load_file(weights / "resnet50.safetensors")["conv1.weight"]
    assert 0 < (state["image.backbone.conv1.weight"] - stem).abs().max().item() < 1e-2
