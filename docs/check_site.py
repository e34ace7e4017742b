"""Opens the site in headless Chromium, and says what a reader's browser meets.

    python docs/check_site.py    # after `make docs`; needs chromium and chromedriver

Pages at the width of a phone and of a desk, light and dark: bytes, requests to other
hosts, errors in the console, pages wider than the screen; and one search. The pictures
are left in build/site/screenshots. Ends with an error where something is wrong.
"""

import functools
import http.server
import json
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tensorboard"))
from take_screenshots import browser

SITE = Path(__file__).resolve().parents[1] / "build" / "site"
LARGEST = 1_000_000
SCREENS = {"phone": (390, 844), "desk": (1440, 900)}
PAGES = [
    "index",
    "layers",
    "speed",
    "choosing_a_cell",
    "coming_from",
    "troubleshooting",
    "study/report",
    "reference/index",
    "reference/layers",
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and prints nothing about it."""

    def log_message(self, *args: object) -> None:
        pass


def messages(driver: object) -> list[dict]:
    return [json.loads(e["message"])["message"] for e in driver.get_log("performance")]


SCHEME = "return document.body.getAttribute('data-md-color-scheme')"


def look(driver: object, address: str, name: str) -> tuple[int, list[str]]:
    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    # The scheme of the first page is remembered, whatever the browser prefers later.
    origin = address.partition(".html")[0].rpartition(":")
    origin = f"{origin[0]}:{origin[2].partition('/')[0]}"
    driver.execute_cdp_cmd(
        "Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"}
    )
    messages(driver)
    driver.get(address)
    time.sleep(1)
    dark = name.endswith("dark")
    if dark != (driver.execute_script(SCHEME) == "slate"):  # as a reader would
        driver.execute_script(
            "document.querySelector('label[for^=__palette]:not([hidden])').click()"
        )
        time.sleep(0.5)
    size, wrong = 0, []
    if dark != (driver.execute_script(SCHEME) == "slate"):
        wrong.append("cannot be made dark, or light")
    for message in messages(driver):
        about = message["params"]
        if message["method"] == "Network.loadingFinished":
            size += int(about["encodedDataLength"])
        url = about.get("request", {}).get("url", "")
        if url.startswith("http") and "//127.0.0.1" not in url:
            wrong.append(f"asks {url}")
    wrong += [entry["message"] for entry in driver.get_log("browser")]
    wide = driver.execute_script(
        "return document.documentElement.scrollWidth - innerWidth"
    )
    if wide > 0:
        wrong.append(f"is {wide} pixels wider than the screen")
    driver.save_screenshot(str(SITE / "screenshots" / f"{name}.png"))
    return size, wrong


FIND = """
const all = (root) => [...root.querySelectorAll("*")].flatMap(
  (e) => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
return all(document).filter((e) => e.matches(arguments[0]));
"""


def search(driver: object, address: str) -> int:
    """The number of links in what a search for `peephole` shows."""
    driver.get(address)
    time.sleep(1)
    before = len(driver.execute_script(FIND, "a"))
    driver.execute_script(
        "(document.querySelector('.md-search__button') || "
        "document.querySelector('[for=__search]')).click()"
    )
    time.sleep(1)
    fields = driver.execute_script(FIND, "input")
    field = next(f for f in fields if f.is_displayed())
    field.send_keys("peephole")
    time.sleep(2)
    driver.save_screenshot(str(SITE / "screenshots" / "search.png"))
    return len(driver.execute_script(FIND, "a")) - before


def main() -> None:
    (SITE / "screenshots").mkdir(exist_ok=True)
    handler = functools.partial(Quiet, directory=str(SITE / "html"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    driver = browser(900, logs=True)
    failed = False
    try:
        for screen, (width, height) in SCREENS.items():
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {**metrics, "mobile": screen == "phone"},
            )
            for scheme in ("light", "dark"):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                driver.execute_cdp_cmd(
                    "Emulation.setEmulatedMedia", {"features": [feature]}
                )
                for page in PAGES:
                    name = f"{page.replace('/', '_')}-{screen}-{scheme}"
                    size, wrong = look(driver, f"{address}/{page}.html", name)
                    if page == "index" and size > LARGEST:
                        wrong.append("is too large")
                    failed = failed or bool(wrong)
                    print(f"{name}: {size:,} bytes", *wrong, sep="\n  ")
        found = search(driver, f"{address}/index.html")
        print(f"search: {found} links")
        failed = failed or found < 1
    finally:
        driver.quit()
        server.shutdown()
    sys.exit(failed)


if __name__ == "__main__":
    main()
