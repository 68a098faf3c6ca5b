"""A headless Chromium for a test: Debian's own, by Debian's own driver, so that the two always fit.

Promise: whatever a page logs to the console, breaks of its policy, or asks another host for is known.
Mechanism: selenium drives it; scripts that a test runs go by the devtools protocol, which a page's
policy does not concern.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

AXE = Path(__file__).parent / "npm" / "node_modules" / "axe-core" / "axe.min.js"
# A machine that does much else may take long for a page.
_PATIENCE_S = 60.0
_WORST = ("serious", "critical")


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        """Take a driver that has its window open."""
        self.driver = driver
        self.size(1280, 900)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.driver.get(url)

    def size(self, width: int, height: int) -> None:
        """Give the window's content this many pixels."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def prefer(self, scheme: str) -> None:
        """Let the person prefer `light` or `dark` pages."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", features=features)

    def find(self, selector: str) -> WebElement:
        """The first element that fits."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, where the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def focused(self) -> WebElement:
        """What has the focus."""
        return self.driver.switch_to.active_element

    def until(self, script: str) -> None:
        """Wait until an expression is true in the page."""
        wait = WebDriverWait(self.driver, _PATIENCE_S, poll_frequency=0.05)
        wait.until(lambda _: self.value(script), f"this did not come true: {script}")

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        answer = self._devtools(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def faults(self) -> list[str]:
        """What is wrong for people with other senses or hands, by axe-core: what is serious or worse."""
        self.value(AXE.read_text() + "\n;undefined")
        found = self.value("axe.run({resultTypes: ['violations']})")
        return [
            f"{fault['id']} ({fault['impact']}): {node['html']} {node['failureSummary']}"
            for fault in found["violations"]
            if fault["impact"] in _WORST
            for node in fault["nodes"]
        ]

    def complaints(self) -> list[str]:
        """What the console has of errors and warnings since the last time, broken policies too."""
        return [str(entry["message"]) for entry in self._log("browser")]

    def hosts(self) -> set[str]:
        """Which hosts were asked since the last time."""
        asked = set()
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme in ("http", "https", "ws", "wss"):
                    asked.add(url.netloc)
        return asked

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        answer = self._devtools("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        return base64.b64decode(answer["data"])

    def _log(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.driver.execute("getLog", {"type": name})["value"]
        return found

    def _devtools(self, command: str, **given: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, given)


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Open a browser that keeps its profile in the folder, and close it at the end."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in (
        "--headless=new",
        # As root, in a container: what is shown is our own.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
        "--force-color-profile=srgb",
        "--lang=en",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(executable_path=shutil.which("chromedriver") or "chromedriver")
    # The driver is on this machine, whatever proxy leads beyond it.
    with patch.dict(os.environ, {"no_proxy": "*", "NO_PROXY": "*"}):
        driver = Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(_PATIENCE_S)
        yield Browser(driver)
    finally:
        driver.quit()
