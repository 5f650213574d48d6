"""Starts MONAI Label with a bundle: ``python -m mobileutr_monai.monai_label BUNDLE STUDIES``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from mobileutr_monai.core.user import name_user

name_user()  # before MONAI is imported

from mobileutr_monai.monai_label.workspace import Workspace  # noqa: E402

PROGRAM = "monai_label"
HOST = "127.0.0.1"
# What the studies' folder is searched for; MONAI Label's own list lacks some endings of the same formats.
ENDINGS = ("*.nii.gz", "*.nii", "*.png", "*.jpg", "*.jpeg", "*.bmp", "*.tif", "*.tiff")
# Seconds after which lists of a PACS are asked for again, and that it may take to answer the first time.
PACS_LIST_AGE = 10
PACS_TIMEOUT = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks what is given, then runs the server until it is stopped; returns 0, or 2 for what cannot be used."""
    options = _build_parser().parse_args(arguments)
    try:
        workspace = Workspace.prepare(options.bundle, options.work, restore=options.restore)
        studies = _check_studies(options.studies)
        _check_port(options.port)
    except (OSError, ValueError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it has stopped
        signal.signal(number, lambda *_: sys.exit(0))
    os.environ.update(_settings(workspace, options))
    # MONAI Label takes an image's name for a path where the working directory has such a file.
    sessions = Path(os.environ["MONAI_LABEL_SESSION_PATH"])
    sessions.mkdir(exist_ok=True)
    os.chdir(sessions)
    # MONAI Label reads its settings when it is imported.
    from monailabel.main import Main

    print(f"{PROGRAM}: http://{HOST}:{options.port} (OHIF: /ohif/ for DICOMweb studies); Ctrl-C stops it", flush=True)
    server = ["--app", str(workspace.folder), "--studies", studies, "--host", HOST, "--port", str(options.port)]
    conf = ["--conf", "models", workspace.bundle.name]
    sys.argv = ["monailabel", "start_server", *server, *conf, "--uvicorn_app", "mobileutr_monai.monai_label.server:app"]
    Main().run()
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Annotate with a MobileUtr bundle in MONAI Label. Research only. Not a medical device.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle, with configs/ and models/")
    parser.add_argument("studies", metavar="STUDIES", help="folder of images or NIfTI, or the URL of a DICOMweb server")
    parser.add_argument("port", nargs="?", type=int, default=8000, metavar="PORT", help="on 127.0.0.1 (default 8000)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/monai_label"),
        help="folder for the copy of the bundle that learns, logs and the PACS cache (default runs/monai_label)",
    )
    parser.add_argument("--restore", action="store_true", help="start with the bundle's own weights again")
    parser.add_argument("--any-modality", action="store_true", help="list all series of a PACS, not the bundle's alone")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {message}\n")


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


def _settings(workspace: Workspace, options: argparse.Namespace) -> Mapping[str, str]:
    """Environment variables that MONAI Label reads."""
    modalities = [] if options.any_modality else list(workspace.metadata["modalities"])
    return {
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(ENDINGS),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(workspace.folder / "dicom"),
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": str(PACS_LIST_AGE),
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": modalities}),
        "MONAI_LABEL_SESSION_PATH": str(workspace.folder / "sessions"),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }


if __name__ == "__main__":
    sys.exit(main())
