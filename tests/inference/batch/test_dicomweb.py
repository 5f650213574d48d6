"""A run over the series of a DICOMweb server, against a real Orthanc that asks for a password."""

from __future__ import annotations

import base64
import csv
import json
import shutil
from pathlib import Path

import pytest
from dicom_samples import write_still
from pydicom import dcmread

pytest.importorskip("dicomweb_client")

from orthanc_server import Orthanc, ask, run_orthanc

from mobileutr_monai.__main__ import main
from mobileutr_monai.readers.sources import dicomweb
from mobileutr_monai.readers.sources.dicomweb import DicomWebSource, parse_query
from mobileutr_monai.readers.sources.units import Grouping

GROUPING = Grouping(volumes=False, channels=False)
SMALL = ["--no-overlays", "--no-page", "--workers", "0", "--set", "image_size=[32,32]"]


class Pacs:
    """Orthanc with three ultrasound stills and an MR image of later."""

    def __init__(self, orthanc: Orthanc, folder: Path, breast: Path) -> None:
        self.orthanc, self.folder = orthanc, folder
        login = base64.b64encode(b"reader:s3cret-word").decode()
        self.headers = {"Authorization": f"Basic {login}"}
        samples = sorted((breast / "sample_data" / "images").iterdir())
        for number, sample in enumerate(samples[:3]):
            (folder / str(number)).mkdir(parents=True)
            write_still(sample, "L", folder / str(number) / "still.dcm")
        other = dcmread(folder / "2" / "still.dcm")
        other.Modality, other.StudyDate = "MR", "20270101"
        other.save_as(folder / "2" / "still.dcm")
        for path in sorted(folder.rglob("*.dcm")):
            answer = ask(f"{orthanc.url}/instances", "POST", path.read_bytes(), "application/dicom", self.headers)
            assert answer.status == 200, answer.body

    def list_of(self, modality: str) -> list[dict]:
        return ask(f"{self.orthanc.dicom_web}/instances?Modality={modality}", headers=self.headers).json

    def count(self) -> int:
        return len(ask(f"{self.orthanc.url}/instances", headers=self.headers).json)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory, breast):
    with run_orthanc(tmp_path_factory.mktemp("orthanc"), {"reader": "s3cret-word"}) as orthanc:
        yield Pacs(orthanc, tmp_path_factory.mktemp("dicom"), breast)


@pytest.fixture(autouse=True)
def login(monkeypatch):
    monkeypatch.setenv(dicomweb.USER, "reader")
    monkeypatch.setenv(dicomweb.PASSWORD, "s3cret-word")


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Returns the rows but for times, which are in the objects, too, and so in their hashes."""
    rows = csv.DictReader((folder / "report.csv").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in ("seconds", "input_stat", "files")} for row in rows]


def read_objects(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Returns name -> UID and pixels of each segmentation and report."""
    every = [(path.name, dcmread(path)) for path in (*folder.rglob("*_seg.dcm"), *folder.rglob("*_sr.dcm"))]
    return {name: (str(found.SOPInstanceUID), found.get("PixelData", b"")) for name, found in every}


@pytest.mark.slow
def test_a_server_gives_what_its_files_give_and_gets_the_results_once(pacs, breast, tmp_path, capsys, caplog):
    source = tmp_path / "in"
    for path in (pacs.folder / "0" / "still.dcm", pacs.folder / "1" / "still.dcm"):
        dataset = dcmread(path, stop_before_pixels=True)
        target = source / dataset.StudyInstanceUID / dataset.SeriesInstanceUID / f"{dataset.SOPInstanceUID}.dcm"
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
    options = ["--structured-report", *SMALL]
    assert main(["predict", str(breast), str(source), "--output", str(tmp_path / "plain"), *options]) == 0
    command = ["predict", str(breast), pacs.orthanc.dicom_web, "--query", "Modality=US,StudyDate=20260101-"]
    command += ["--output", str(tmp_path / "out"), *options, "--store"]
    assert main(command) == 0
    rows = read_rows(tmp_path / "out")
    assert rows == read_rows(tmp_path / "plain")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    results = read_objects(tmp_path / "out")
    assert results == read_objects(tmp_path / "plain")
    assert len(results) == 4
    # The server has the same objects.
    assert (len(pacs.list_of("SEG")), len(pacs.list_of("SR"))) == (2, 2)
    stored = {item["00080018"]["Value"][0] for kind in ("SEG", "SR") for item in pacs.list_of(kind)}
    assert stored == {uid for uid, _ in results.values()}
    # Run again: nothing is fetched, nothing is stored; the password is in no message and no file.
    before = pacs.count()
    assert main(command) == 0
    assert pacs.count() == before
    texts = [path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any("s3cret-word" in text for text in (*texts, *capsys.readouterr(), caplog.text))
    # Lost on this machine, made and stored again: the server has the same objects.
    shutil.rmtree(tmp_path / "out")
    assert main(command) == 0
    assert pacs.count() == before


def test_every_series_is_listed_once_over_pages_and_queries_choose(pacs, monkeypatch):
    every = [unit.key for unit in DicomWebSource(pacs.orthanc.dicom_web, "PatientID=test").list_units(GROUPING)]
    monkeypatch.setattr(dicomweb, "PAGE_SIZE", 2)
    paged = [unit.key for unit in DicomWebSource(pacs.orthanc.dicom_web, "PatientID=test").list_units(GROUPING)]
    assert sorted(paged) == sorted(every)
    later = list(DicomWebSource(pacs.orthanc.dicom_web, "Modality=MR,StudyDate=20270101").list_units(GROUPING))
    assert [(unit.count, unit.size) for unit in later] == [(1, 2**20)]
    assert not list(DicomWebSource(pacs.orthanc.dicom_web, "Modality=XA").list_units(GROUPING))


def test_a_series_comes_as_it_was_stored(pacs, tmp_path):
    source = DicomWebSource(pacs.orthanc.dicom_web, "Modality=MR")
    root, listing = source.fetch(list(source.list_units(GROUPING)), tmp_path / "part")
    assert [path.read_bytes() for path in listing.paths] == [(pacs.folder / "2" / "still.dcm").read_bytes()]
    assert listing.paths[0].parents[2] == root
    gone = dicomweb.Unit("1.2.3/4.5.6", expected=2)
    _, listing = source.fetch([gone], tmp_path / "gone")
    assert not listing.paths
    assert [ignored.reason.name for ignored in listing.ignored] in (["NOT_FETCHED"], ["NOT_FOUND"])


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("{url}", ["--query", "Modallity=US"], "'Modallity' is no keyword of DICOM"),
        ("{url}", ["--list", "x"], "a DICOMweb server has series; choose them with --query"),
        ("http://me:s3cret@127.0.0.1/dicom-web", [], "set DICOMWEB_USERNAME and DICOMWEB_PASSWORD"),
        ("http://127.0.0.1:9/dicom-web", [], "cannot be searched: no connection to the server"),
        ("s3://bucket", ["--store"], "--query and --store are for a DICOMweb server"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(pacs, breast, tmp_path, capsys, monkeypatch, url, options, message):
    monkeypatch.setattr("mobileutr_monai.readers.sources.remote._WAIT_SECONDS", 0.01)
    command = ["predict", str(breast), url.format(url=pacs.orthanc.dicom_web), "--output", str(tmp_path / "out")]
    assert main([*command, *options, *SMALL]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "s3cret" not in error
    assert not (tmp_path / "out").exists()


def test_a_wrong_password_is_said(pacs, monkeypatch):
    monkeypatch.setenv(dicomweb.PASSWORD, "wrong")
    with pytest.raises(ValueError, match="cannot be searched: the server answered 401"):
        DicomWebSource(pacs.orthanc.dicom_web).check()


def test_a_query_may_have_lists_of_uids():
    query = parse_query("Modality=US, StudyInstanceUID=1.2,1.3")
    assert query == {"Modality": "US", "StudyInstanceUID": "1.2,1.3"}
    assert json.dumps(query)
