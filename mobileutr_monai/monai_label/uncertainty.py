"""Which image to annotate next: the one that the model is least sure of.

A job scores the images that have no final label with the confidence of ``report.csv``, which is the Dice to expect. It
is calibrated for a bundle's own weights; of weights that were trained here, the estimate that it is made of takes its
place, which orders images of one label alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monai.bundle import ConfigParser
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from mobileutr_monai.datasets.duplicates import group_pairs, pair_thumbnails
from mobileutr_monai.monai_label.bundles import ServedBundle
from mobileutr_monai.monai_label.choosing import choose_image, confidence_of, score_image
from mobileutr_monai.networks import load_weights

__all__ = ["ScoreFile", "UncertaintyScoring", "UncertaintyStrategy"]

logger = logging.getLogger(__name__)

# Images after which what is known so far is written, and seconds after which an image is offered again.
_WRITE_EVERY = 10
_OFFERED_FOR = 3600


class ScoreFile:
    """``scores.json`` next to a bundle's copy: image -> ``confidence``, ``patient`` and ``group`` of near-duplicates.

    It is of one set of studies and one set of weights; of others, it is as good as empty.
    """

    def __init__(self, bundle: ServedBundle, studies: str) -> None:
        self.path = bundle.path.parents[1] / "scores.json"
        self.weights, self.studies = bundle.path / "models" / "model.pt", studies

    def _key(self) -> list[str]:
        return [self.studies, self.digest]

    @property
    def digest(self) -> str:
        """SHA-256 of the weights that are there now."""
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def read(self) -> dict[str, dict[str, Any]]:
        """Returns what is known."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            images: dict[str, dict[str, Any]] = content["images"] if content["of"] == self._key() else {}
        except (OSError, ValueError, KeyError):
            return {}
        return images

    def write(self, images: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes atomically."""
        part = self.path.with_suffix(".tmp")
        part.write_text(json.dumps({"of": self._key(), "images": images}), encoding="utf-8")
        part.replace(self.path)


class UncertaintyScoring(ScoringMethod):
    """Scores the images without a final label; those that are scored already are left out."""

    def __init__(self, bundles: Sequence[ServedBundle], studies: str) -> None:
        super().__init__("Confidence in the mask of each image without a label")
        self.bundles, self.studies = bundles, studies

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, int]:
        """Scores, at most ``max_samples`` images of each bundle; returns how many were."""
        counts = {}
        for bundle in self.bundles:
            file = ScoreFile(bundle, self.studies)
            known = file.read()
            wanted = find_unscored(bundle, known, datastore)[: request.get("max_samples") or None]
            counts[bundle.name] = self._score(bundle, file, known, wanted, datastore) if wanted else 0
        logger.info("scored: %s", counts)
        return counts

    def _score(
        self, bundle: ServedBundle, file: ScoreFile, known: dict[str, Any], wanted: Sequence[str], datastore: Any
    ) -> int:
        parser = ConfigParser()
        parser.read_config(str(bundle.path / "configs" / "inference.json"))
        parser["bundle_root"] = str(bundle.path)
        segmenter = parser.get_parsed_content("segmenter")
        load_weights(segmenter.network, file.weights)
        segmenter.network.eval()
        labels = parser.get_parsed_content("quality").for_weights(file.digest).labels
        for number, image in enumerate(wanted, 1):
            try:
                confidence = score_image(segmenter, labels, Path(datastore.image_source(image)))
            except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this image only
                logger.warning("an image cannot be scored (%s)", type(error).__name__)
                known[image] = {"confidence": None}
                continue
            known[image] = {"confidence": confidence, "patient": datastore.patient_of(image)}
            if number % _WRITE_EVERY == 0:
                file.write(known)
        for image in set(datastore.list_images()) - set(datastore.get_unlabeled_images()):
            known.setdefault(image, {"patient": datastore.patient_of(image)})
        thumbnails = {image: datastore.thumbnail_of(image) for image in known}
        alike = pair_thumbnails({image: value for image, value in thumbnails.items() if value is not None})
        for group in group_pairs(thumbnails, alike):
            for image in group:
                known[image]["group"] = group[0]
        file.write(known)
        return len(wanted)


def find_unscored(bundle: ServedBundle, known: Mapping[str, Any], datastore: Any) -> list[str]:
    """Returns the images without a final label that a bundle takes and has not scored."""
    images = [image for image in sorted(datastore.get_unlabeled_images()) if "confidence" not in known.get(image, {})]
    found = []
    for image in images:
        try:
            if bundle in datastore.find_bundles(image):
                found.append(image)
        except (HTTPException, ValueError, OSError) as error:
            logger.warning("an image is left out (%s)", type(error).__name__)
    return found


class UncertaintyStrategy(Strategy):
    """Offers the image with the lowest confidence: one of each patient, and one of images that are nearly the same."""

    def __init__(self, bundles: Sequence[ServedBundle], studies: str) -> None:
        super().__init__("The image that the model is least sure of")
        self.bundles, self.studies = bundles, studies
        self._offered: dict[str, float] = {}  # image -> when

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Returns an image; the first without a label while none is scored."""
        named = request.get("model")
        scores: dict[str, dict[str, Any]] = {}
        for bundle in self.bundles:
            if named in (None, "", bundle.name):
                for image, item in ScoreFile(bundle, self.studies).read().items():
                    if image not in scores or confidence_of(item) < confidence_of(scores[image]):
                        scores[image] = item
        images = sorted(datastore.get_unlabeled_images())
        labelled = set(datastore.list_images()) - set(images)
        now = time.monotonic()
        self._offered = {image: since for image, since in self._offered.items() if now - since < _OFFERED_FOR}
        chosen = choose_image(images, scores, labelled, self._offered)
        if chosen is None:
            return None
        self._offered[chosen] = now
        return {"id": chosen, "confidence": scores.get(chosen, {}).get("confidence")}
