"""A headless Chromium as a user has it: clicks, keys, and what its console and network say.

It speaks the Chrome DevTools Protocol over a pair of pipes, which needs neither a driver nor a package.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Browser", "find_chromium"]

SECONDS = 30.0
HIGH = 20
"""Descriptors from here on are neither of the shell nor those that the browser looks for."""
KEYS = {
    "Tab": (9, "\t"),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    **{f"Arrow{name}": (37 + i, "") for i, name in enumerate(("Left", "Up", "Right", "Down"))},
}


def find_chromium() -> str | None:
    """Returns the browser's program, None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One tab without a network, or with this machine's own servers alone.

    Args:
        net_log: file in which the browser notes all requests of all its parts, at its end; with it, servers of this
            machine can be reached.

    Attributes:
        console: errors and warnings of the page and the browser, and all that was logged.
        requests: addresses that were asked for.
        patience: seconds that something may take.
    """

    patience = SECONDS

    def __init__(
        self,
        program: str,
        width: int = 1440,
        height: int = 900,
        dark: bool = False,
        phone: bool = False,
        net_log: Path | None = None,
    ) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        self._folder = tempfile.mkdtemp()
        self._number = 0
        self._session: str | None = None
        self._rest = b""
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        theirs = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH) for descriptor in (to_read, to_write)]
        flags = ["--headless", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        if net_log is not None:
            flags += [f"--log-net-log={net_log}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
            flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        if os.geteuid() == 0:  # the sandbox of Chromium is not for root
            flags.append("--no-sandbox")
        # The browser looks for its pipes at the descriptors 3 and 4.
        shell = 'exec "$@" 3<&{} 4>&{}'.format(*theirs)
        command = ["bash", "-c", shell, "chromium", program, *flags, f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for descriptor in (to_read, to_write, *theirs):
            os.close(descriptor)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        if net_log is None:
            self.cut_off()
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(SECONDS)
        except (OSError, EOFError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._folder, ignore_errors=True)

    def cut_off(self) -> None:
        """Takes the network away."""
        self.send("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def visit(self, address: str) -> None:
        """Opens an address of a server, without waiting."""
        self.send("Page.navigate", url=address)

    def give_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Chooses files in an ``input``, of which a headless browser shows no dialog."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path.resolve()) for path in paths])

    def open(self, path: Path, fragment: str = "") -> None:
        """Opens a file and waits until it is there."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=path.resolve().as_uri() + fragment)
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def ask(self, script: str) -> Any:
        """Returns the value of an expression."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", script))
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + self.patience
        while not self.ask(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Clicks where an element is."""
        place = self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, *keys: str) -> None:
        """Presses keys one after the other: characters, or names as in ``KEYS``."""
        for key in keys:
            code, text = KEYS.get(key, (ord(key[0].upper()), key))
            facts = {"key": key, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
            self.send("Input.dispatchKeyEvent", type="keyUp", **facts)

    def choose(self, selector: str, value: str) -> None:
        """Chooses an option of a list, of which the browser draws no menu here."""
        self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
            "if (e.selectedIndex < 0) throw new Error('no such option');"
            "e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def save_screenshot(self, path: Path) -> None:
        """Writes a PNG of what is seen."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def send(self, method: str, **parameters: Any) -> Any:
        """Returns the result of a command of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._from, 2**20)
            if not data:
                raise EOFError("Chromium has ended")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        facts = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(value.get("value")) for value in facts["args"]))
        elif event.get("method") == "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded":
            self.console.append(facts["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
