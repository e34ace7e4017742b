"""Takes the pictures of docs/tensorboard.md, of TensorBoard in headless Chromium.

    pip install selenium    # and the programs chromium and chromedriver
    python docs/tensorboard/take_screenshots.py [PAGE ...]

It needs the runs that the page tells how to make: runs/study and runs/speech.
"""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FOLDER = Path(__file__).parent
CELLS = ("gru", "lstm")
PAGES = {
    "custom_scalars": ("--logdir runs/study/tensorboard/curves", 1150),
    "timeseries": ("--logdir runs/study/tensorboard/curves", 1200),
    "hparams": ("--logdir runs/study/tensorboard/trials", 800),
    "images": (
        "--logdir_spec "
        + ",".join(f"{cell}:runs/study/piano_midi-{cell}-seeds-1" for cell in CELLS),
        1000,
    ),
    "audio": ("--logdir runs/speech", 900),
}
"""What is shown of which runs, and how high the picture is, in pixels."""
SECONDS = 25
"""TensorBoard reads its runs in the background, and tells no one when it is done."""

TICK = """
const tick = (root) => root.querySelectorAll("*").forEach((element) => {
  if (element.shadowRoot) tick(element.shadowRoot);
  if (element.matches("paper-checkbox") && element.innerText.includes(arguments[0]))
    element.click();
});
tick(document);
"""
"""Elements of TensorBoard's older pages are in shadows, where selectors do not look."""


def browser(height: int, logs: bool = False) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    options.add_argument(f"--window-size=1400,{height}")
    if logs:  # of the console, and of what is loaded
        options.set_capability(
            "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
        )
    return webdriver.Chrome(options, Service(shutil.which("chromedriver")))


def take(page: str, runs: str, height: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = Path(sys.executable).with_name("tensorboard")
    server = subprocess.Popen(
        [program, *runs.split(), "--port", port, "--samples_per_plugin", "images=1"],
        stderr=subprocess.DEVNULL,
    )
    driver = browser(height)
    try:
        time.sleep(SECONDS)
        driver.get(f"http://127.0.0.1:{port}/#{page}")
        time.sleep(SECONDS)
        driver.execute_script(TICK, "actual image size")
        time.sleep(2)
        driver.save_screenshot(str(FOLDER / f"{page}.png"))
    finally:
        driver.quit()
        server.terminate()
        server.wait()


def main() -> None:
    for page in sys.argv[1:] or PAGES:
        take(page, *PAGES[page])


if __name__ == "__main__":
    main()
