"""Product and query text → token ids. Reads text; writes and loads a Hugging Face fast tokenizer folder.

The tokenizer is WordPiece (Schuster & Nakajima 2012; Devlin et al. 2019) trained on the shop's training texts, or any
Hugging Face fast tokenizer by name or folder.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from fuserank.errors import ConfigError, ModelError

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXT_FIELDS = ("title", "description", "brand", "category", "attributes", "currency")
"""What a text feature may read; also `attributes.<name>`. Labels are not here, so no feature can see one."""


def check_fields(fields: Sequence[str], key: str = "text_fields") -> None:
    """Refuse text fields that do not exist or hold labels.

    Args:
        key: of `preprocess`, that they are from.

    Raises:
        ConfigError: naming the field and the valid ones.
    """
    for field in fields:
        if field not in TEXT_FIELDS and not field.startswith("attributes."):
            raise ConfigError(
                f"preprocess.{key}: `{field}` is not a text field of a product.",
                f"Use any of {', '.join(TEXT_FIELDS)} or attributes.<name>.",
            )


def text_columns(fields: Sequence[str]) -> list[str]:
    """The product columns that text fields read, each once: `attributes.material` is in `attributes`."""
    return list(dict.fromkeys(field.partition(".")[0] for field in fields))


def product_text(product: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The product's text: its fields' values joined by spaces in the given order, "" if it has none.

    Args:
        product: a PRODUCT row; `attributes` as a dict or as Arrow's list of pairs. Of all of them together, bare
            numbers and yes or no are left out: without their name they say nothing.
    """
    parts: list[str] = []
    for field in fields:
        name, _, key = field.partition(".")
        value = product.get(name)
        if not value:
            continue
        if name == "attributes":
            pairs = value.items() if isinstance(value, Mapping) else value
            parts += [word for label, word in pairs if word and (key == label or (not key and says(word)))]
        elif isinstance(value, str):
            parts.append(value)
        else:
            parts += [word for word in value if word]
    return " ".join(parts)


def says(value: str) -> bool:
    """Whether an attribute's value tells something by itself: it is neither a number nor a yes or no."""
    return value.lower() not in ("true", "false", "yes", "no") and any(letter.isalpha() for letter in value)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A lower-casing WordPiece tokenizer of at most `vocabulary` entries; `[PAD]` is 0, output is `[CLS] … [SEP]`."""
    texts = list(texts)
    # The trainer numbers word-inner characters in the random order of its hash map, and its ties follow those numbers.
    # Handing them over as special tokens fixes the order: the same texts give the same vocabulary.
    inner = [f"##{character}" for character in _inner_characters(texts)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=[*SPECIAL, *inner], min_frequency=2, show_progress=False
    )
    learner = _word_piece({UNKNOWN: 0})
    learner.train_from_iterator(texts, trainer)
    tokenizer = _word_piece(learner.get_vocab())
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (CLS, SEP)],
    )
    return tokenizer


def _word_piece(vocabulary: dict[str, int]) -> Tokenizer:
    model = models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=64)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.decoder = decoders.WordPiece()  # type: ignore[assignment]
    return tokenizer


def _inner_characters(texts: list[str]) -> list[str]:
    """Characters that occur inside words (not as their first), most frequent first, ties by code point."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word[1:]:
            counts[character] += count
    return sorted(counts, key=lambda character: (-counts[character], character))


def save_tokenizer(tokenizer: Tokenizer, folder: Path, text_tokens: int, roles: Mapping[str, str]) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` so that transformers' AutoTokenizer loads the folder.

    Args:
        roles: special tokens by role (`pad_token` …); empty for a tokenizer trained here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    ours = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": text_tokens}
    config |= dict(roles) or ours
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def fetch_tokenizer(name: str) -> tuple[Tokenizer, int, int | None, dict[str, str]]:
    """A Hugging Face fast tokenizer by name or folder.

    Returns:
        tokenizer, pad id (0 if it has none), mask id, and its special tokens by role for `tokenizer_config.json`.

    Raises:
        ModelError: it cannot be loaded or is not a fast tokenizer.
    """
    from transformers import AutoTokenizer  # seconds to import, and only wanted here

    try:
        found = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # the library raises OSError, ValueError, and its hub client's own errors
        detail = f"{type(error).__name__}: {str(error).splitlines()[0]:.160}"
        raise ModelError(
            f"preprocess.tokenizer: {name!r} cannot be loaded ({detail}).",
            "Give a local folder that holds tokenizer.json, or leave it null to train one on the shop's text.",
        ) from None
    if not getattr(found, "is_fast", False):
        raise ModelError(
            f"preprocess.tokenizer: {name!r} is not a fast tokenizer.", "Give one whose folder holds a tokenizer.json."
        )
    roles = {role: str(token) for role, token in found.special_tokens_map.items() if isinstance(token, str)}
    tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
    return tokenizer, found.pad_token_id or 0, found.mask_token_id, roles
