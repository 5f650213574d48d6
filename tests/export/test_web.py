"""The page that segments in a browser: its files, and what a user does with it in Chromium."""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundImageStorage

from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.export.web.npm import INSTALL, PINNED, RUNTIME, NpmPackage, find_packages
from mobileutr_monai.export.web.site import POLICY, SITE, export_site, write_page
from tests.dicom_samples import make_dataset
from tests.inference.report.browser import Browser, find_chromium

BUNDLES = ("breast_ultrasound_segmentation", "skin_dermoscopy_segmentation")
LESION = "benign (91).jpg"


def npm_modules(repository: Path) -> Path:
    """The ``node_modules`` folder of the tests: that of the checkout, or the one of the variable NODE_MODULES."""
    return Path(os.environ.get("NODE_MODULES", repository / "node_modules"))


# The files, without a browser


@pytest.fixture
def page(tmp_path: Path) -> Path:
    write_page(tmp_path, [], [])
    return tmp_path


def test_the_service_worker_keeps_every_file(page: Path) -> None:
    kept = json.loads(re.search(r"const KEPT = ({.*?});", (page / "service-worker.js").read_text(), re.DOTALL)[1])
    found = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert {*kept["page"], *kept["large"]} == found - {"service-worker.js", "index.html"} | {"./"}
    assert json.loads((page / "site.json").read_text())["files"].keys() == found - {"service-worker.js", "site.json"}


def test_the_policy_allows_connections_to_the_own_server_alone(page: Path) -> None:
    assert f'http-equiv="Content-Security-Policy" content="{POLICY}"' in (page / "index.html").read_text()
    assert "default-src 'none'" in POLICY and "connect-src 'self'" in POLICY
    assert not re.search(r"https?:|\*|unsafe-inline|unsafe-eval(?<!wasm-unsafe-eval)", POLICY)


def test_our_files_name_no_other_server_and_have_nothing_inline(page: Path) -> None:
    for path in page.iterdir():
        if path.is_file():
            addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text()))
            assert addresses <= {"http://www.w3.org"}, path.name
    assert not re.search(r"<style|<script(?! type=\"module\" src)| on\w+=| style=", (page / "index.html").read_text())


def test_the_notice_is_on_the_page(page: Path) -> None:
    assert "Research only. Not a medical device" in (page / "index.html").read_text()


def make_package(modules: Path, name: str, version: str) -> Path:
    """An installed package with other content than npm's."""
    (modules / name / "dist").mkdir(parents=True)
    (modules / name / "package.json").write_text(json.dumps({"name": name, "version": version}))
    for file in PINNED[name].files:
        (modules / name / file).write_text("")
    return modules


def test_says_where_to_get_the_runtime(mobileutr, breast: Path, tmp_path: Path) -> None:
    done = mobileutr("export", breast, "--format", "web", "--output", tmp_path / "site", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert INSTALL in done.stderr and not (tmp_path / "site").exists()


def test_accepts_the_pinned_release_alone(tmp_path: Path) -> None:
    make_package(tmp_path, RUNTIME, "0.9")
    with pytest.raises(ValueError, match=rf"is release 0.9, the page was tested with .*: run {INSTALL}"):
        find_packages(tmp_path)


def test_accepts_no_altered_file(tmp_path: Path) -> None:
    make_package(tmp_path, RUNTIME, PINNED[RUNTIME].version)
    with pytest.raises(ValueError, match=r"ort.wasm.bundle.min.mjs' is not the file of onnxruntime-web"):
        find_packages(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "web", "--end-to-end"], "leave --end-to-end out"),
        (["--format", "web", "--weights", "none.pt"], "no weights at none.pt"),
        (["--onnxruntime-web", "node_modules"], "is for --format web"),
    ],
)
def test_wrong_options_are_one_line(mobileutr, breast: Path, tmp_path: Path, arguments, message: str) -> None:
    done = mobileutr("export", breast, "--output", tmp_path / "site", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr


@pytest.mark.parametrize("overwrite", [False, True])
def test_touches_no_folder_that_is_no_page(breast: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another --output"):
        export_site([breast], tmp_path, [], overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# In Chromium


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def packages(repository: Path) -> list[NpmPackage]:
    if find_chromium() is None:
        pytest.skip("no Chromium")
    modules = npm_modules(repository)
    if not (modules / RUNTIME).is_dir():
        pytest.skip(INSTALL)
    return find_packages(modules)


@pytest.fixture(scope="module")
def site(repository: Path, packages: list[NpmPackage], tmp_path_factory) -> Path:
    """The page, with two bundles."""
    folder: Path = tmp_path_factory.mktemp("web") / "site"
    export_site([repository / "bundles" / name for name in BUNDLES], folder, packages)
    return folder


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serves a folder at an address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serve(site) as address:
        yield address


@pytest.fixture(scope="module")
def predict(repository: Path, mobileutr, tmp_path_factory) -> Callable[[str, Path], Path]:
    """Returns the folder of the results of ``mobileutr predict``."""

    def run(bundle: str, images: Path) -> Path:
        output = tmp_path_factory.mktemp(bundle) / "out"
        options = ("--output", output, "--no-overlays", "--no-page", "--workers", 0)
        assert mobileutr("predict", repository / "bundles" / bundle, images, *options).returncode == 0
        return output

    return run


class Page(Browser):
    """The page as a user sees it."""

    patience = 240.0

    def ready(self, bundle: str = BUNDLES[0]) -> None:
        self.wait(f"document.body?.dataset.ready === {json.dumps(bundle)}")

    def segment(self, bundle: str, path: Path) -> None:
        self.give_files("#files", [path])
        self.wait(f"document.body.dataset.shown === {json.dumps(f'{bundle}/{path.name}')}")

    def save_mask(self, folder: Path, name: str) -> np.ndarray:
        """Presses S; returns what is downloaded, and removes it."""
        self.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.press("s")
        path = folder / f"{Path(name).stem}_mask.png"
        deadline = time.monotonic() + self.patience
        while not path.is_file():
            assert time.monotonic() < deadline, f"no {path.name}"
            self.ask("0")
            time.sleep(0.05)
        mask = np.asarray(Image.open(path))
        path.unlink()
        return mask

    def text(self, selector: str) -> str:
        found: str = self.ask(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")
        return found


def requests_of(net_log: Path, address: str) -> set[str]:
    """All that the page and its workers asked for, from the browser's own log; the browser asks for updates itself."""
    events = (event.get("params", {}) for event in json.loads(net_log.read_text())["events"])
    return {event["url"] for event in events if "url" in event and f"{event.get('initiator')}/" == address}


@pytest.mark.slow
def test_masks_are_those_of_predict_and_no_request_leaves(
    repository: Path, address: str, predict, tmp_path: Path
) -> None:
    log = tmp_path / "net.json"
    with Page(find_chromium(), net_log=log) as page:
        page.visit(address)
        page.ready()
        for bundle in BUNDLES:
            page.choose("#bundle", bundle)
            page.ready(bundle)
            images = repository / "bundles" / bundle / "sample_data" / "images"
            expected = predict(bundle, images)
            for path in sorted(images.iterdir()):
                page.segment(bundle, path)
                found = page.save_mask(tmp_path, path.name)
                mask = np.asarray(Image.open(expected / f"{path.stem}_mask.png"))
                assert found.shape == mask.shape and found.dtype == np.uint8
                assert 100 * (found != mask).mean() <= MAX_MISMATCH_PERCENT, path.name
        assert page.ask("crossOriginIsolated")
        assert not page.text("#messages")
        assert [line for line in page.console if "adapter" not in line] == []
    requests = {*requests_of(log, address), *page.requests}
    assert {f"{address}vendor/ort-wasm-simd-threaded.wasm", f"{address}{SITE}"} <= requests
    assert {request for request in requests if not request.removeprefix("blob:").startswith(address)} == set()


def write_stills(picture: Path, folder: Path) -> None:
    """A colour still calibrated by a region of tissue that cuts the lesion; a grey one with a window and spacing."""
    colour = np.asarray(Image.open(picture).convert("RGB"))
    colour = np.ascontiguousarray(colour[: colour.shape[0] // 2 * 2, : colour.shape[1] // 2 * 2])
    regions = make_dataset(UltrasoundImageStorage, "US", colour)
    region = Dataset()
    region.RegionSpatialFormat, region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = 1, 3, 3
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = colour.shape[1] - 1, 64
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.012, 0.015
    regions.SequenceOfUltrasoundRegions = [region]
    regions.save_as(folder / "regions.dcm", enforce_file_format=True)
    deep = make_dataset(UltrasoundImageStorage, "US", 4095 - colour[..., 0].astype(np.uint16) * 16)
    deep.PhotometricInterpretation, deep.BitsStored, deep.HighBit = "MONOCHROME1", 12, 11
    deep.WindowCenter, deep.WindowWidth, deep.WindowCenterWidthExplanation = "2048", "3600", None
    deep.PixelSpacing, deep.PixelSpacingCalibrationType = [0.21, 0.19], "GEOMETRY"
    deep.save_as(folder / "deep.dcm", enforce_file_format=True)


@pytest.mark.slow
def test_dicom_stills_have_the_mask_and_area_of_predict(breast: Path, address: str, predict, tmp_path: Path) -> None:
    stills = tmp_path / "stills"
    stills.mkdir()
    write_stills(breast / "sample_data" / "images" / LESION, stills)
    expected = predict(BUNDLES[0], stills)
    with (expected / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["case"]).stem: row for row in csv.DictReader(file)}
    with Page(find_chromium(), net_log=tmp_path / "net.json") as page:
        page.visit(address)
        page.ready()
        for name in ("regions", "deep"):
            page.segment(BUNDLES[0], stills / f"{name}.dcm")
            found = page.save_mask(tmp_path, f"{name}.dcm")
            mask = dcmread(expected / f"{name}_seg.dcm").pixel_array.reshape(found.shape)
            assert mask.any() and 100 * (found != mask).mean() <= MAX_MISMATCH_PERCENT
            area = float(page.text("#regions td").split(" mm²")[0].replace(",", ""))
            assert area == pytest.approx(float(rows[name]["area_mm2"]), abs=1), name
            assert ("outside of the tissue" in page.text("#regions td")) == (name == "regions")


@pytest.mark.slow
def test_works_without_its_server_and_by_keyboard(breast: Path, site: Path, tmp_path: Path) -> None:
    images = [breast / "sample_data" / "images" / name for name in (LESION, "benign (351).jpg")]
    with Page(find_chromium(), net_log=tmp_path / "net.json") as page:
        with serve(site) as address:
            page.visit(address)
            page.wait("document.body?.dataset.offline === 'true'")
        page.ask("delete document.body.dataset.ready")
        page.visit(address)
        page.ready()
        page.press("Tab", "Tab", "Tab")
        assert page.ask("document.activeElement.dataset.action") == "camera"  # after the menu and the first button
        for path in images:
            page.segment(BUNDLES[0], path)
        page.press("ArrowLeft")
        page.wait(f"document.querySelector('#name').textContent === {json.dumps(LESION)}")
        sizes = []
        for keys, value in (((), "0.50"), (("]",), "0.55"), (("[", "["), "0.45")):
            page.press(*keys)
            page.wait(f"document.querySelector('#threshold-value').textContent === '{value}'")
            sizes.append(int(page.save_mask(tmp_path, LESION).astype(bool).sum()))
        assert 0 < sizes[1] < sizes[0] < sizes[2]
        for shown in ("filled", "image", "contour"):
            page.press("c")
            assert page.ask("document.querySelector('input[name=shown]:checked').value") == shown


@pytest.mark.slow
def test_bad_files_are_one_line_each(breast: Path, address: str, tmp_path: Path) -> None:
    image = breast / "sample_data" / "images" / LESION
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(image.read_bytes()[:5000])
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "deep.png")
    Image.new("RGB", (64, 64), "black").save(tmp_path / "black.png")
    Image.new("RGBA", (64, 64), (200, 0, 0, 100)).save(tmp_path / "clear.png")
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    for name, changes in {"cine": {"NumberOfFrames": 2}, "mr": {"Modality": "MR"}}.items():
        dataset = make_dataset(UltrasoundImageStorage, "US", pixels)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    said = {
        "empty.png": "the file is empty",
        "text.png": "it is not a PNG, JPEG or DICOM image",
        "cut.jpg": "it is damaged or cut off",
        "deep.png": "it has 16 bits per channel",
        "black.png": "all pixels have the value 0",
        "clear.png": "it has transparent pixels",
        "cine.dcm": "it has 2 frames",
        "mr.dcm": "its modality is MR; this bundle is for US",
    }
    with Page(find_chromium(), net_log=tmp_path / "net.json") as page:
        page.visit(address)
        page.ready()
        for name, text in said.items():
            page.give_files("#files", [tmp_path / name])
            page.wait(
                f"document.querySelector('#messages span')?.textContent.startsWith({json.dumps(f'{name}: {text}')})"
            )
        page.segment(BUNDLES[0], image)  # goes on after errors
        assert [line for line in page.console if "adapter" not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen_and_the_notice_stays(
    breast: Path, address: str, width: int, tmp_path: Path
) -> None:
    with Page(find_chromium(), width=width, height=800, phone=width < 800, net_log=tmp_path / "net.json") as page:
        page.visit(address)
        page.ready()
        page.segment(BUNDLES[0], breast / "sample_data" / "images" / LESION)
        assert page.ask("document.documentElement.scrollWidth") <= width
        page.ask("document.querySelector('#panel').scrollIntoView({block: 'end'})")
        notice = page.ask(
            "(({top, bottom}) => [top, bottom])(document.querySelector('#notice').getBoundingClientRect())"
        )
        assert notice[0] >= 0 and notice[1] <= 800
