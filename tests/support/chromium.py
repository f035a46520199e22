"""Pages opened in Chromium, as a user opens them: from a file, in windows of several widths, light or dark."""

from __future__ import annotations

import html
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from handloom.bench.serve.browser import find_chromium

# As root in a container, and without the calls home that a new profile makes.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
FRAME = "<iframe srcdoc='{page}' style='width: {width}px; height: 9000px; border: 0'></iframe>"
# A window of headless Chromium is at least 500 px wide, so each width is a frame of its own.
SCRIPT = """<pre id='measured'></pre><script>
addEventListener("load", () => {
  const measure = %s;
  const frames = [...document.querySelectorAll("iframe")];
  const found = frames.map(frame => measure(frame.contentDocument, frame.contentWindow));
  document.getElementById("measured").textContent = JSON.stringify(found);
});
</script>"""


def measured_in_chromium(page: str, measure: str, widths: list[int], tmp_path: Path, dark: bool = False) -> list[Any]:
    """What the JavaScript function `measure(document, window)` returns for the page in frames of these widths.

    Skips the test where there is no Chromium.
    """
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("needs Chromium (Debian and Ubuntu: apt-get install chromium)")
    frames = "".join(FRAME.format(page=html.escape(page, quote=True), width=width) for width in widths)
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<!doctype html><meta charset='utf-8'>{frames}{SCRIPT % measure}")
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [chromium, *FLAGS, theme, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    text = done.stdout.partition('<pre id="measured">')[2].partition("</pre>")[0]
    assert text, f"the page was not measured: {done.stderr[-2000:]}"
    return json.loads(html.unescape(text))
