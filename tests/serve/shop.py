"""A tiny real generation for the serving tests: an untrained model over forty products, made in a second."""

import hashlib
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from fuserank import config
from fuserank.features.attributes import AttributeVocabulary
from fuserank.features.batch import collate
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.neighbours import Neighbours
from fuserank.models.build import build_model
from fuserank.models.candidates import feature_names
from fuserank.models.checkpoint import save_model, save_weights
from fuserank.models.fused import Standardize
from fuserank.models.reranker import Reranker
from fuserank.records.schema import PRODUCT
from fuserank.retrieval.generation import activate, current_generation, write_generation
from fuserank.training.encode import autocast

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200), "black": (20, 20, 20)}
KINDS = ("shoe", "shirt", "watch", "bag", "hat")
BRANDS = ("Acme", "Nord")
MODALITIES = ("text", "image", "price", "attributes")


def picture(colour: str, size: int = 48) -> bytes:
    """A PNG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (size, size), COLOURS[colour]).save(out, "PNG")
    return out.getvalue()


def products(media: Path) -> pa.Table:
    """Forty products: each colour, kind and brand once; every tenth without a picture."""
    rows = []
    for number in range(40):
        colour, kind, brand = list(COLOURS)[number % 4], KINDS[number // 4 % 5], BRANDS[number // 20]
        data = picture(colour, 32 + number)
        name = f"{hashlib.sha256(data).hexdigest()}.png"
        folder = media / name[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        rows.append(
            dict.fromkeys(PRODUCT.names)
            | {
                "product_id": f"p{number:02d}" if number != 39 else "p/39",
                "title": f"{colour} {kind}",
                "images": [] if number % 10 == 9 else [name],
                "price": Decimal(f"{10 + number}.50") if number % 7 else None,
                "currency": "EUR",
                "brand": brand,
                "category": ["goods", kind],
                "attributes": [("colour", colour)],
                "labels": [("secret", "label")],
                "in_stock": number % 3 != 0,
                "rating": 3.0 + number % 3,
                "review_count": number,
            }
        )
    return pa.Table.from_pylist(rows, PRODUCT)


def build_run(root: Path, make: Callable[[Path], pa.Table] = products) -> config.Experiment:
    """Write a run with a finished index below `root`; returns its experiment.

    Args:
        make: writes media into a folder and gives the products.
    """
    torch.manual_seed(0)
    experiment = config.validate(
        {
            "name": "tiny",
            "storage": {"root": str(root)},
            "encoders": {
                "text": {"layers": 1, "hidden": 32, "heads": 2},
                "audio": None,
                "recommender": {"layers": 1, "heads": 2, "events": 5},
            },
            "fusion": {"width": 32},
            "index": {"candidates": 20},
            "serve": {"port": 0, "max_limit": 50},
        }
    )
    media = root / "tiny" / "preprocess" / "media"
    table = make(media)
    documents = table.to_pylist()
    featurizer = Featurizer.fit(
        [document["title"] or "" for document in documents],
        [float(np.log(12.5)), float(np.log(40.5))],
        FeatureSettings(image_size=(32, 32), attributes=AttributeVocabulary.fit(documents)),
        vocabulary=200,
    )
    featurizer.save(root / "featurizer")
    settings = featurizer.settings
    edges, known = list(settings.price_edges), len(settings.attributes.values)
    model = build_model(
        experiment.encoders, experiment.fusion, settings.vocabulary, 32, settings.mels, edges, known
    ).eval()
    vectors, mask = np.zeros((len(documents), 4, 32), np.float32), np.zeros((len(documents), 4), bool)
    texts = [featurizer.product_text(document) for document in documents]
    values = [
        [tokens if text else None for tokens, text in zip(featurizer.text(texts), texts, strict=True)],
        [featurizer.image((media / n[0][:2] / n[0]).read_bytes()) if (n := d["images"]) else None for d in documents],
        [featurizer.price(document["price"]) for document in documents],
        [featurizer.attributes(document) for document in documents],
    ]
    with torch.no_grad(), autocast(torch.device("cpu")):
        for m, modality in enumerate(MODALITIES):
            has = [row for row, value in enumerate(values[m]) if value is not None]
            inputs = collate(modality, [values[m][row] for row in has], pad_id=settings.pad_id)
            standardise(model.projections[modality], model.hidden(modality, inputs).float())
            vectors[has, m] = model.encode(modality, inputs).half().float().numpy()
            mask[has, m] = True
    save_model(model, root / "model")
    Behaviour.nothing(len(documents)).save(root / "model")
    Neighbours.count([], len(documents)).save(root / "model")
    save_weights(Reranker(len(feature_names(MODALITIES))), root / "model" / "reranker.safetensors")
    with torch.inference_mode():
        fused = model.product_vectors(torch.from_numpy(vectors), torch.from_numpy(mask)).numpy()
    index = root / "tiny" / "index"
    write_generation(
        index,
        products=table,
        modality_vectors=vectors,
        mask=mask,
        vectors=fused,
        texts=texts,
        model_folder=root / "model",
        featurizer_folder=root / "featurizer",
        modalities=MODALITIES,
        typos=experiment.index.typos,
        details={"media": str(media)},
    )
    (index / "manifest.json").write_text(json.dumps({"digest": "made by a test"}))
    return experiment


def standardise(projection: torch.nn.Module, hidden: torch.Tensor) -> None:
    """As training begins: outputs of an untrained encoder are all but alike."""
    spread = hidden.std(0)
    for part in projection.modules():
        if isinstance(part, Standardize):
            part.center.copy_(hidden.mean(0))
            part.spread.copy_(spread.clamp(min=0.05 * float(spread.mean()) + 1e-6))


def add_generation(experiment: config.Experiment, prefix: str) -> str:
    """A second generation: the products of the first, with ids that begin otherwise. The first one stays current."""
    index = experiment.run / "index"
    first = current_generation(index)
    products, catalogue = first.catalogue.products, first.catalogue
    renamed = pa.array([prefix + name[1:] for name in catalogue.ids])
    featurizer = Featurizer.load(first.featurizer_folder)
    identity = write_generation(
        index,
        products=products.set_column(products.schema.get_field_index("product_id"), "product_id", renamed),
        modality_vectors=catalogue.modality_vectors,
        mask=catalogue.mask,
        vectors=catalogue.vectors,
        texts=[featurizer.product_text(document) for document in products.to_pylist()],
        model_folder=first.model_folder,
        featurizer_folder=first.featurizer_folder,
        modalities=MODALITIES,
        details={"media": first.manifest["media"]},
    )
    activate(index, first.id)
    return identity
