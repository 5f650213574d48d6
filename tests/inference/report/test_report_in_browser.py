"""The report page of real runs in Chromium, without a network: filters, order, keys, and hostile names."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from mobileutr_monai.inference.report.pages import write_pages
from tests.inference.report.browser import Browser, find_chromium

BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
NAMES = "Array.from(document.querySelectorAll('.card .name'), (e) => e.textContent)"
FOCUSED = "document.activeElement.closest('.card')?.querySelector('.name').textContent"
OPENED = "document.querySelector('#viewer').open ? document.querySelector('#case-name').textContent : ''"
MARKUP = "x<img src=x onerror=document.title=1>.jpg"
CLOSING = "</script><script>document.title=2</script>.jpg"


def run(bundle: str, source: Path, output: Path) -> Path:
    """Runs a bundle of which some case fails; returns the output folder."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / bundle / "configs" / "inference.json"))
    parser.read_meta(str(BUNDLES / bundle / "configs" / "metadata.json"))
    folders = {"dataset_dir": str(source), "output_dir": str(output)}
    parser.update({"bundle_root": str(BUNDLES / bundle), **folders, "overlays": False})
    with pytest.raises(SystemExit) as stop:
        parser.get_parsed_content("runner").main()
    assert stop.value.code == 1
    return output


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A run over samples, hostile names, a broken file and one that is no image."""
    source = tmp_path_factory.mktemp("images")
    samples = sorted((BUNDLES / "breast_ultrasound_segmentation" / "sample_data" / "images").iterdir())
    for sample in samples:
        shutil.copyfile(sample, source / sample.name)
    hostile = (MARKUP, CLOSING, "rtl\u202egnp.jpg", os.fsdecode(b"caf\xe9.jpg"), "a\"'`&amp;.jpg")
    for name, sample in zip(hostile, samples, strict=False):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample, source / name)
    (source / "cut off.jpg").write_bytes(samples[0].read_bytes()[:4000])
    (source / "notes.txt").write_text("no image")
    return run("breast_ultrasound_segmentation", source, tmp_path_factory.mktemp("images_out"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("volumes")
    samples = sorted((BUNDLES / "hippocampus_mri_segmentation" / "sample_data" / "images").iterdir())
    for sample in samples[:2]:
        shutil.copyfile(sample, source / sample.name)
    (source / "broken.nii.gz").write_bytes(samples[0].read_bytes()[:4000])
    return run("hippocampus_mri_segmentation", source, tmp_path_factory.mktemp("volumes_out"))


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of the report, with the names as the page shows them."""
    with (folder / "report.csv").open(newline="") as file:
        return [{**row, "case": row["case"].replace("\u202e", "\\u202e")} for row in csv.DictReader(file)]


@pytest.fixture
def open_browser() -> Iterator[Callable[..., Browser]]:
    """Opens pages; at the end none may have said anything, or asked for anything but files."""
    program = find_chromium()
    if program is None:
        assert not os.environ.get("CI"), "CI has no Chromium; .ci/run installs it"
        pytest.skip("no Chromium here: apt-get install chromium")
    browsers: list[Browser] = []

    def open_browser(path: Path, fragment: str = "", **options: object) -> Browser:
        browsers.append(Browser(program, **options))
        browsers[-1].open(path, fragment)
        return browsers[-1]

    yield open_browser
    said = [(browser.ask("document.title"), browser.console, browser.requests) for browser in browsers]
    for browser in browsers:
        browser.__exit__(None, None, None)
    for title, console, requests in said:
        assert "batch report" in title, "nothing in a name has run"
        assert console == []
        assert {address.split(":")[0] for address in requests} <= {"file", "data", "about"}


def test_shows_every_case_and_that_it_is_for_research_only(open_browser, images):
    browser = open_browser(images / "report.html")
    assert len(browser.ask(NAMES)) == 15
    assert browser.ask("document.querySelector('#notice').textContent").startswith("Research only.")
    assert browser.ask("document.querySelectorAll('.card.ok .view img').length") == 2 * 13
    browser.wait("Array.from(document.images).every((image) => image.complete && image.naturalWidth > 0)")
    ran = browser.ask("document.querySelector('#provenance').innerText")
    summary = json.loads((images / "report.json").read_text())
    for fact in (summary["bundle"], summary["weights_sha256"], summary["config_sha256"], summary["versions"]["torch"]):
        assert fact in ran


def test_names_are_shown_as_they_are_and_do_nothing(open_browser, images):
    browser = open_browser(images / "report.html")
    names = browser.ask(NAMES)
    assert {MARKUP, CLOSING, "rtl\\u202egnp.jpg", "caf\\udce9.jpg", "a\"'`&amp;.jpg"} <= set(names)
    browser.press("ArrowRight", "Enter")
    for _ in names:
        browser.press("j")
    assert browser.ask("document.querySelectorAll('img:not([src^=data])').length") == 0


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda b: b.click("#tiles [value=failed]"), lambda row: row["status"] == "failed"),
        (lambda b: b.click("#tiles [value=skipped]"), lambda row: row["status"] == "skipped"),
        (lambda b: b.click("#tiles [value=flagged]"), lambda row: row["flag"]),
        (lambda b: b.choose("#flag", "low confidence"), lambda row: "low confidence" in row["flag"]),
        (lambda b: b.choose("#flag", "none"), lambda row: row["status"] == "ok" and not row["flag"]),
        (lambda b: b.choose("#reason", "unreadable image"), lambda row: row["reason"] == "unreadable image"),
        (lambda b: b.choose("#label", "with:lesion"), lambda row: (row["pixels"] or "0") != "0"),
        (lambda b: b.choose("#label", "without:lesion"), lambda row: row["pixels"] == "0"),
        (lambda b: (b.click("#text"), b.press(*"BENIGN (3")), lambda row: "benign (3" in row["case"]),
    ],
    ids=["failed", "skipped", "flagged", "flag", "no flag", "reason", "label", "no label", "text"],
)
def test_filters_leave_the_cases_that_the_report_says(open_browser, images, choose, expected):
    rows = read_rows(images)
    browser = open_browser(images / "report.html")
    choose(browser)
    left = [row for row in rows if expected(row)]
    assert len(rows) > len(left)
    assert set(browser.ask(NAMES)) == {row["case"] for row in left}
    browser.click("#reset")
    assert browser.ask("document.querySelectorAll('.card').length") == len(rows)


@pytest.mark.parametrize("key", ["confidence", "percent", "seconds"])
@pytest.mark.parametrize("reverse", [False, True])
def test_sorts_by_numbers_with_cases_that_have_none_last(open_browser, images, key, reverse):
    numbers = {row["case"]: float(row[key]) for row in read_rows(images) if row[key]}
    browser = open_browser(images / "report.html")
    browser.choose("#sort", key)
    if reverse:
        browser.click("#reverse")
    with_number = browser.ask(NAMES)[: len(numbers)]
    assert set(with_number) == set(numbers)
    assert [numbers[name] for name in with_number] == sorted(numbers.values(), reverse=reverse)


def test_sorts_by_name_as_the_report_does(open_browser, images):
    browser = open_browser(images / "report.html")
    browser.choose("#sort", "name")
    assert browser.ask(NAMES) == [row["case"] for row in read_rows(images)]


def test_keys_go_from_case_to_case(open_browser, images):
    browser = open_browser(images / "report.html")
    names = browser.ask(NAMES)
    browser.press("ArrowRight")
    assert browser.ask(FOCUSED) == names[0]
    browser.press("j", "ArrowRight", "k")
    assert browser.ask(FOCUSED) == names[1]
    across = browser.ask(
        "Array.from(document.querySelectorAll('.card')).filter((c, _, a) => c.offsetTop === a[0].offsetTop).length"
    )
    browser.press("ArrowDown")
    assert browser.ask(FOCUSED) == names[1 + across]
    browser.press("ArrowUp", "Enter")
    assert browser.ask(OPENED) == names[1]
    browser.press("j", "ArrowRight", "ArrowLeft")
    assert browser.ask(OPENED) == names[2]
    browser.press("Escape")
    assert browser.ask(OPENED) == ""
    browser.wait(f"{FOCUSED} === {json.dumps(names[2])}")  # back where one was
    browser.press("?")
    assert browser.ask("document.querySelector('#keys').open")
    browser.press("Escape", "/", "j")
    assert browser.ask("document.activeElement.value") == "j", "letters that are typed are no keys"


def test_a_case_has_the_original_beside_contours_that_can_be_taken_away(open_browser, images):
    browser = open_browser(images / "report.html")
    browser.click("#tiles [value=ok]")
    browser.press("ArrowRight", "Enter")
    seen = "Array.from(document.querySelectorAll('#pictures .contours'), (e) => getComputedStyle(e).visibility)"
    places = "Array.from(document.querySelectorAll('#pictures .view'), (e) => e.getBoundingClientRect().toJSON())"
    original, contours = browser.ask(places)
    assert original["right"] <= contours["left"]
    assert original["width"] == contours["width"] > 400
    assert browser.ask(seen) == ["visible"]
    browser.press("c")
    assert browser.ask(seen) == ["hidden"]
    browser.press("c", "o")
    assert browser.ask(seen) == ["visible"]
    assert [place["width"] > 0 for place in browser.ask(places)] == [False, True]


def test_a_failure_has_its_reason_its_detail_and_remedy(open_browser, images):
    browser = open_browser(images / "report.html")
    browser.click("#tiles [value=failed]")
    browser.click(".card")
    text = browser.ask("document.querySelector('#facts').innerText")
    assert "unreadable image" in text
    assert "truncated" in text
    assert "copy or export it again" in text


def test_a_volume_is_shown_in_three_planes(open_browser, volumes):
    browser = open_browser(volumes / "report.html")
    browser.click(".card.ok")
    captions = browser.ask("Array.from(document.querySelectorAll('#pictures figcaption'), (e) => e.textContent)")
    assert captions == [
        f"{plane}, {what}" for what in ("original", "contours") for plane in ("axial", "coronal", "sagittal")
    ]
    text = browser.ask("document.querySelector('#facts').innerText")
    assert "anterior" in text
    assert " ml" in text


def test_many_cases_lead_from_the_summary_to_their_pages(open_browser, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "out")
    summary = json.loads((folder / "report.json").read_text())
    paths = write_pages(folder, summary, summary["labels"].values(), most=2)
    browser = open_browser(folder / "report.html")
    assert browser.ask("document.querySelectorAll('#pages li a').length") == len(paths) - 1
    browser.ask("document.querySelector('.card.ok .nothing').click()")
    name = browser.ask(OPENED)
    browser.click("#facts a[href*=page_]")
    browser.wait("location.pathname.includes('report_pages')")
    browser.wait("document.readyState === 'complete'")
    assert browser.ask(OPENED) == name
    assert browser.ask("document.querySelectorAll('#pictures img').length") > 0
    browser.press("Escape")
    browser.click("#pages a")
    browser.wait("location.pathname.endsWith('/out/report.html')")


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone_and_everything_has_a_name(open_browser, images, dark):
    browser = open_browser(images / "report.html", width=390, height=844, phone=True, dark=dark)
    assert browser.ask("document.documentElement.scrollWidth") <= 390
    browser.click("#filters summary")
    assert browser.ask("document.documentElement.scrollWidth") <= 390
    browser.ask("document.querySelector('.card.ok').click()")
    assert browser.ask("document.querySelector('#viewer').scrollWidth") <= 390
    has_name = "e.labels?.length || e.ariaLabel || e.textContent.trim()"
    nameless = f"Array.from(document.querySelectorAll('input, select, button')).filter((e) => !({has_name})).length"
    assert browser.ask(nameless) == 0
    assert browser.ask("document.querySelectorAll('img:not([alt])').length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_that_wcag_asks_for(open_browser, images, dark):
    browser = open_browser(images / "report.html", dark=dark)
    names = ("page", "surface", "text", "muted", "accent", "warn", "warn-back", "bad", "bad-back")
    values = browser.ask(
        f"{json.dumps(names)}.map((n) => {{ const e = document.createElement('i'); e.style.color = `var(--${{n}})`;"
        "document.body.append(e); return getComputedStyle(e).color; })"
    )
    colours = {name: tuple(map(int, value[4:-1].split(","))) for name, value in zip(names, values, strict=True)}
    pairs = [(one, back) for one in ("text", "muted", "accent") for back in ("page", "surface")]
    for one, back in [*pairs, ("warn", "warn-back"), ("bad", "bad-back"), ("text", "bad-back")]:
        assert contrast(colours[one], colours[back]) >= 4.5, (one, back)


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Returns the contrast ratio of WCAG 2.2."""
    light = [
        sum(
            share * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
            for share, value in zip((0.2126, 0.7152, 0.0722), (c / 255 for c in colour), strict=True)
        )
        for colour in (one, other)
    ]
    return (max(light) + 0.05) / (min(light) + 0.05)
