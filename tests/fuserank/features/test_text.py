"""Text features: which fields are read, what the tokenizer does, and that it survives saving."""

import subprocess
import sys
from pathlib import Path

import pytest

from fuserank.errors import ConfigError, ModelError
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.text import product_text, train_tokenizer

TEXTS = ["Red running shoes", "Blue running shirt", "Grüne Schuhe", "红色 连衣裙", "red shirt", "blue shoes"] * 3
PRODUCT = {
    "title": "Mug",
    "brand": None,
    "category": ["Home", "Kitchen"],
    "attributes": [("colour", "blue"), ("size", "L")],
    "labels": [("kind", "SECRET")],
}


def test_product_text() -> None:
    assert product_text(PRODUCT, ["title", "brand", "category"]) == "Mug Home Kitchen"
    assert product_text(PRODUCT, ["attributes.size", "title"]) == "L Mug"
    assert product_text(PRODUCT, ["attributes"]) == "blue L"
    assert product_text({}, ["title", "attributes"]) == ""
    told = {"attributes": {"weight": "1.5", "colour": "blue", "wireless": "true", "size": "12 x 3 cm"}}
    assert product_text(told, ["attributes"]) == "blue 12 x 3 cm"
    assert product_text(told, ["attributes.weight", "attributes.wireless"]) == "1.5 true"


def test_word_search_may_read_other_fields_than_the_encoder(tmp_path: Path) -> None:
    settings = FeatureSettings(text_fields=("title",), word_fields=("title", "title", "attributes"))
    Featurizer.fit(TEXTS, [], settings, vocabulary=300).save(tmp_path)
    featurizer = Featurizer.load(tmp_path)
    assert featurizer.product_text(PRODUCT) == "Mug"
    assert featurizer.product_words(PRODUCT) == "Mug Mug blue L"
    assert Featurizer.fit(TEXTS, [], FeatureSettings(text_fields=("title",))).product_words(PRODUCT) == "Mug"
    with pytest.raises(ConfigError, match=r"preprocess\.word_fields: `labels`"):
        FeatureSettings(word_fields=("labels",))


@pytest.mark.parametrize("field", ["labels", "labels.kind", "tilte", "split"])
def test_no_label_is_a_text_field(field: str) -> None:
    with pytest.raises(ConfigError, match="not a text field"):
        Featurizer.fit(TEXTS, [], FeatureSettings(text_fields=("title", field)))


def test_tokens() -> None:
    featurizer = Featurizer.fit(TEXTS, [1.0], FeatureSettings(text_tokens=6), vocabulary=300)
    short, long = featurizer.text(["RED shoes", "red " * 50])
    assert featurizer.decode(short) == "red shoes"
    assert len(long) == 6
    assert short[0] == long[0] != short[-1] == long[-1]  # [CLS] … [SEP], also when cut
    assert featurizer.text(["schuhe"]) == featurizer.text(["Schuhe"])
    assert featurizer.settings.mask_id not in (None, featurizer.settings.pad_id)
    assert featurizer.settings.vocabulary <= 300


def test_transformers_opens_the_saved_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    featurizer = Featurizer.fit(TEXTS, [0.5, 1.5, 2.5], FeatureSettings(image_size=(10, 8)), vocabulary=300)
    featurizer.save(tmp_path)
    loaded = Featurizer.load(tmp_path)
    assert loaded.settings == featurizer.settings
    assert loaded.text(TEXTS) == featurizer.text(TEXTS)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"))
    assert theirs(TEXTS)["input_ids"] == featurizer.text(TEXTS)
    assert theirs.pad_token_id == featurizer.settings.pad_id
    assert theirs.mask_token_id == featurizer.settings.mask_id
    # and the folder serves as `preprocess.tokenizer` of another run
    borrowed = Featurizer.fit([], [], FeatureSettings(), tokenizer=str(tmp_path / "tokenizer"))
    assert borrowed.text(TEXTS) == featurizer.text(TEXTS)
    assert (borrowed.settings.pad_id, borrowed.settings.mask_id) == (theirs.pad_token_id, theirs.mask_token_id)
    borrowed.save(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(str(tmp_path / "again" / "tokenizer")).mask_token == "[MASK]"


def test_missing_tokenizer_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="local folder"):
        Featurizer.fit(TEXTS, [], FeatureSettings(), tokenizer=str(tmp_path / "none"))
    with pytest.raises(ModelError, match="fuserank preprocess"):
        Featurizer.load(tmp_path)


def test_training_is_the_same_in_every_process() -> None:
    """Hash maps differ from process to process; the vocabulary must not."""
    program = (
        "import hashlib; from fuserank.features.text import train_tokenizer;"
        "texts = [f'{a}{b} {b}{c}{a}x' for a in 'abcdefgh' for b in 'ijklmnop' for c in 'qrstuv'];"
        "print(hashlib.sha256(train_tokenizer(texts, 200).to_str().encode()).hexdigest())"
    )
    path = str(Path(__file__).resolve().parents[3] / "platform")
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
        for _ in range(3)
    ]
    assert len({run.stdout for run in runs}) == 1
    assert len(runs[0].stdout.strip()) == 64


def test_vocabulary_is_bounded() -> None:
    assert train_tokenizer(TEXTS, 60).get_vocab_size() <= 60
