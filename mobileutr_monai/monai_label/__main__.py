"""Starts MONAI Label with bundles: ``python -m mobileutr_monai.monai_label BUNDLE... STUDIES [PORT]``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from mobileutr_monai.core.program import name_user

name_user()  # before MONAI is imported

from mobileutr_monai.monai_label.web.guard import ALLOWANCES, Access  # noqa: E402
from mobileutr_monai.monai_label.workspace import Workspace, prepare_app  # noqa: E402

PROGRAM = "monai_label"
HOST, DEFAULT_PORT = "127.0.0.1", 8000
WORK = "runs/monai_label"
CORS_VARIABLE = "MONAI_LABEL_CORS_ORIGINS"
# What the studies' folder is searched for; MONAI Label's own list lacks some endings of the same formats.
ENDINGS = ("*.nii.gz", "*.nii", "*.png", "*.jpg", "*.jpeg", "*.bmp", "*.tif", "*.tiff")
# Seconds after which lists of a PACS are asked for again, and that it may take to answer the first time.
PACS_LIST_AGE = 10
PACS_TIMEOUT = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks what is given, then runs the server until it is stopped; returns 0, or 2 for what cannot be used."""
    options = _build_parser().parse_args(arguments)
    os.umask(0o077)  # images of patients, and logs that name them
    try:
        bundles, studies, port = _split_places(options.places)
        access = _read_access(options, port)
        _check_port(port)
        studies = _check_studies(studies)
        work = _from_caller(options.work) if options.work else Path(WORK)
        workspaces = [Workspace.prepare(bundle, work, restore=options.restore) for bundle in bundles]
        folder = prepare_app(work, workspaces)
    except (OSError, ValueError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it has stopped
        signal.signal(number, lambda *_: sys.exit(0))
    os.environ.update(_settings(folder, workspaces, options))
    os.environ.pop(CORS_VARIABLE, None)  # MONAI Label fails with any; _read_access has taken it
    tempfile.tempdir = None
    # MONAI Label takes an image's name for a path where the working directory has such a file.
    os.chdir(folder / "sessions")
    # MONAI Label reads its settings when it is imported.
    from monailabel.main import Main

    print(f"{PROGRAM}: http://{HOST}:{port} (OHIF: /ohif/ for DICOMweb studies); Ctrl-C stops it", flush=True)
    server = ["--app", str(folder), "--studies", studies, "--host", HOST, "--port", str(port)]
    names = {workspace.bundle.name: str(workspace.bundle) for workspace in workspaces}
    conf = ["--conf", "models", ",".join(names), "--conf", "bundles", json.dumps(names)]
    conf += ["--conf", "access", access.to_conf()]
    sys.argv = [
        "monailabel",
        "start_server",
        *server,
        *conf,
        "--uvicorn_app",
        "mobileutr_monai.monai_label.web.server:app",
    ]
    Main().run()
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} BUNDLE [BUNDLE ...] STUDIES [PORT] [options]",
        description="Annotate with MobileUtr bundles in MONAI Label. Research only. Not a medical device.",
    )
    parser.add_argument(
        "places",
        nargs="+",
        metavar="BUNDLE ... STUDIES [PORT]",
        help="folders of bundles, or names in bundles/; folder of images or NIfTI, or the URL of a DICOMweb server; "
        f"port on {HOST} (default 8000)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        help=f"folder for the copies of the bundles that learn, logs and the PACS cache (default {WORK})",
    )
    parser.add_argument("--restore", action="store_true", help="start with the bundles' own weights again")
    parser.add_argument(
        "--any-modality",
        action="store_true",
        help="list all series of a PACS, not only those of the bundles' modalities",
    )
    parser.add_argument("--no-training", action="store_true", help="offer inference and annotation only")
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="further name by which clients may call the server, for example behind a proxy",
    )
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="origin of web pages that may use the server"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=sorted(ALLOWANCES),
        help="open what is closed: " + "; ".join(f"{name}: {text}" for name, text in ALLOWANCES.items()),
    )
    parser.add_argument(
        "--max-upload", type=int, default=512, metavar="MIB", help="largest upload in MiB (default %(default)s)"
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {message}\n")


def _split_places(places: Sequence[str]) -> tuple[list[Path], str, int]:
    """Returns bundles, studies and port, with paths of the caller's folder.

    Raises:
        ValueError: one is missing, or a bundle is there twice.
    """
    *rest, last = places
    port = int(last) if last.isdigit() and rest else DEFAULT_PORT
    bundles = rest if not last.isdigit() else rest[:-1]
    if not bundles:
        raise ValueError("BUNDLE and STUDIES are needed; usage: bash scripts/monai_label.sh BUNDLE... STUDIES [PORT]")
    studies = rest[-1] if last.isdigit() else last
    if not studies.startswith(("http://", "https://")):
        studies = str(_from_caller(Path(studies)))
    found = [_find_bundle(bundle) for bundle in bundles]
    if len({path.resolve().name for path in found}) < len(found):
        raise ValueError("two bundles have the same name; give each once")
    return found, studies, port


def _find_bundle(name: str) -> Path:
    """Returns a folder of the caller, or of ``bundles/`` by its name."""
    given, shipped = _from_caller(Path(name)), Path("bundles", name)
    return shipped if not given.is_dir() and shipped.is_dir() else given


def _from_caller(path: Path) -> Path:
    return Path(os.environ.get("MOBILEUTR_CALLER", "."), path)


def _read_access(options: argparse.Namespace, port: int) -> Access:
    """Returns who may call the server.

    Raises:
        ValueError: an origin is no URL of a host, or the limit is not positive.
    """
    text = os.environ.get(CORS_VARIABLE, "").strip()
    listed = json.loads(text) if text.startswith("[") else text.split(",")
    origins = [*options.origin, *(str(origin).strip() for origin in listed)]
    given = [origin.rstrip("/") for origin in origins if origin]
    for origin in given:
        parts = urllib.parse.urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or "*" in origin:
            raise ValueError(f"origin {origin!r} is no http(s)://HOST[:PORT]; name each page's origin")
    if options.max_upload < 1:
        raise ValueError(f"--max-upload {options.max_upload} must be at least 1 MiB")
    hosts = {HOST, "localhost", *(name.lower() for name in options.host_name)}
    own = {f"http://{host}:{port}" for host in hosts}
    own |= {f"{scheme}://{name}" for name in options.host_name for scheme in ("http", "https")}
    return Access(frozenset(hosts), frozenset(own | set(given)), frozenset(options.allow), options.max_upload * 2**20)


def _check_studies(studies: str) -> str:
    """Returns the folder, absolute, or the URL.

    Raises:
        ConnectionError: the URL does not answer as a DICOMweb server.
        NotADirectoryError: there is no such folder.
    """
    if not studies.startswith(("http://", "https://")):
        folder = Path(studies)
        if not folder.is_dir():
            raise NotADirectoryError(f"no folder {studies}, and no URL that starts with http:// or https://")
        return str(folder.resolve())
    request = urllib.request.Request(  # noqa: S310 - the schemes are checked above
        f"{studies.rstrip('/')}/series?limit=1", headers={"Accept": "application/dicom+json"}
    )
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}", "") for name in ("USERNAME", "PASSWORD"))
    opener = urllib.request.build_opener()
    if user:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, studies, user, password)
        opener.add_handler(urllib.request.HTTPBasicAuthHandler(passwords))
    try:
        with opener.open(request, timeout=PACS_TIMEOUT) as answer:
            json.loads(answer.read() or b"[]")
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConnectionError(f"{studies} does not answer as a DICOMweb server: {error}") from None
    return studies


def _check_port(port: int) -> None:
    if not 0 < port < 2**16:
        raise ValueError(f"port {port} is not between 1 and 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise OSError(f"port {port} cannot be used ({error.strerror}); give another one") from None


def _settings(folder: Path, workspaces: Sequence[Workspace], options: argparse.Namespace) -> Mapping[str, str]:
    """Environment variables that MONAI Label reads."""
    listed = [modality for workspace in workspaces for modality in workspace.metadata["modalities"]]
    modalities = [] if options.any_modality else list(dict.fromkeys(listed))
    training = {"MONAI_LABEL_TASKS_TRAIN": "false"} if options.no_training else {}
    return {
        **training,
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(ENDINGS),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "dicom"),
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": str(PACS_LIST_AGE),
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": modalities}),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "TMPDIR": str(folder / "tmp"),
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }


if __name__ == "__main__":
    sys.exit(main())
