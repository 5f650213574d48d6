"""The servers of a test session: each starts once, on loopback. Training, which changes one, comes last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import monai.bundle
import pytest
from label_pacs import Pacs
from label_service import (
    BREAST,
    BUNDLES,
    HIPPOCAMPUS,
    LabelServer,
    serve,
)
from label_studies import write_broken, write_pictures, write_volumes
from orthanc_server import Orthanc, run_orthanc

OPTIONS = ("--allow", "images", "--allow", "models", "--allow", "uncompress", "--max-upload", "8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all tests here, so that they can be left out."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("label")


@pytest.fixture(scope="session")
def four_bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """All bundles over one folder of pictures and volumes; what is closed by default is closed."""
    studies = tmp_path_factory.mktemp("four") / "studies"
    studies.mkdir()
    write_pictures(studies)
    write_volumes(studies)
    with serve(BUNDLES, studies, studies.parent / "work") as running:
        yield running


@pytest.fixture(scope="session")
def breast_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """The breast bundle over its samples and broken files; images, weights and archives may be sent."""
    studies = tmp_path_factory.mktemp("breast") / "studies"
    studies.mkdir()
    for image in sorted((BREAST / "sample_data" / "images").iterdir()):
        shutil.copy(image, studies)
    write_broken(studies)
    with serve(BREAST, studies, studies.parent / "work", *OPTIONS) as running:
        yield running


@pytest.fixture(scope="session")
def studies(breast_server: LabelServer) -> Path:
    return breast_server.workspace.parents[1] / "studies"


@pytest.fixture
def run_bundle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``monai.bundle run`` with a bundle's inference on a folder, from its root."""

    def run(bundle: Path, dataset_dir: Path, output_dir: Path, **overrides: object) -> None:
        monkeypatch.chdir(bundle)
        folders = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir)}
        monai.bundle.run(config_file="configs/inference.json", overlays=False, workers=0, **folders, **overrides)

    return run


@pytest.fixture(scope="session")
def pacs(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Pacs:
    return Pacs(orthanc, tmp_path_factory.mktemp("dicom"))


@pytest.fixture(scope="session")
def pacs_server(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """The bundles for ultrasound and MR over a PACS."""
    work = tmp_path_factory.mktemp("pacs")
    with serve([BREAST, HIPPOCAMPUS], pacs.orthanc.dicom_web, work, "--allow", "images") as running:
        yield running


@pytest.fixture(scope="session")
def any_server(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    with serve(HIPPOCAMPUS, pacs.orthanc.dicom_web, tmp_path_factory.mktemp("any"), "--any-modality") as running:
        yield running


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running
