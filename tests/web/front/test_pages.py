"""The gallery's pages: what they compute (in node), what they may hold, and that their libraries are the built ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import handloom

WEB = Path(handloom.__file__).parent / "web"
STATIC = WEB / "static"
PAGES = [
    path for path in sorted(STATIC.rglob("*")) if path.suffix in {".js", ".html", ".css"} and "vendor" not in path.parts
]
HERE = Path(__file__).parent


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


def test_what_pages_compute():
    if shutil.which("node") is None:
        pytest.skip("needs node (Debian and Ubuntu: apt-get install nodejs)")
    version = run("node", "--version", cwd=HERE).stdout
    if int(version.strip("v\n").partition(".")[0]) < 18:
        pytest.skip(f"needs node 18 or newer, which has `node --test`; this is {version}")
    done = run("node", "--test", *(str(path) for path in sorted(HERE.glob("*.test.mjs"))), cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE), done.stdout


FORBIDDEN = {
    "text that becomes HTML": r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write",
    "code from text": r"\beval\(|new Function\(",
    "an address outside the server": r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9.-]+\.[a-z]{2,}/",
}


def test_pages_hold_nothing_that_is_unsafe_or_outside():
    found = [(path.name, why) for path in PAGES for why, what in FORBIDDEN.items() if re.search(what, path.read_text())]
    assert not found
    assert re.search(FORBIDDEN["an address outside the server"], "https://cdn.example.com/x.js")


def test_the_page_has_no_inline_script_or_style():
    """The content-security policy refuses them, and the page would stay blank."""
    page = (STATIC / "index.html").read_text()
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", page)
    for source in re.findall(r"""(?:src|href)="/static/([^"]+)""", page):
        assert (STATIC / source).is_file() or source in {"clip.css", "dataset.css"}, source


VENDOR = ("../vendor/handloom-vendor.js", "../vendor/handloom-three.js")


def test_pages_import_only_each_other_and_the_built_libraries():
    for path in PAGES:
        for name in re.findall(r"""from "([^"]+)";""", path.read_text()) if path.suffix == ".js" else ():
            assert name in VENDOR or (name.startswith("./") and (path.parent / name).is_file()), (path, name)


def test_what_pages_import_of_the_libraries_is_built():
    """A module that names something else is not loaded, and its page stays empty."""
    sources = dict(zip(VENDOR, ("vendor.js", "three.js"), strict=True))
    for path in PAGES:
        for names, vendor in re.findall(r"""import \{([^}]*)\} from "(\.\./vendor/[^"]+)";""", path.read_text()):
            built = set(re.findall(r"\w+", (WEB / "front" / sources[vendor]).read_text()))
            assert {name.split()[0] for name in names.split(",") if name.strip()} <= built, path.name


def reached(name: str) -> set[str]:
    """The modules that a page loads before it shows anything."""
    found, queue = {name}, [name]
    while queue:
        text = (STATIC / "js" / queue.pop()).read_text()
        new = set(re.findall(r"""from "\./([^"]+)";""", text)) - found
        found |= new
        queue += new
    return found


def test_pages_show_all_else_before_3d_is_loaded():
    """It is 130 kB of 200: a second of a slow network. The views in 3D alone wait for it."""
    pages = {"main.js", *re.findall(r"""import\("\./([^"]+)"\)""", (STATIC / "js" / "main.js").read_text())}
    assert {"search.js", "clip.js", "episode.js"} <= pages
    with_3d = {name for name in (*pages, "scene.js", "path.js") for one in reached(name) if _has_3d(one)}
    assert with_3d == {"scene.js", "path.js"}


def _has_3d(name: str) -> bool:
    return VENDOR[1] in (STATIC / "js" / name).read_text()


def test_every_key_is_in_the_table_that_help_shows():
    """`test_every_key_that_help_shows_works` (in a browser) is the other half."""
    own = {"keys.js": 1, "main.js": 2, "parts.js": 1}  # runs the table; the letter after `g`; any key ends a scroll
    found = {path.name: len(re.findall(r"onKey|\bkey(?:down|up|press)\b", path.read_text())) for path in PAGES}
    assert {name: number for name, number in found.items() if number} == own


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_libraries_are_what_their_sources_build(tmp_path):
    """The same packages (package-lock.json) give the same bytes. Without a registry of packages nothing is known."""
    front = tmp_path / "front"
    shutil.copytree(WEB / "front", front, ignore=shutil.ignore_patterns("node_modules"))
    installed = run("npm", "ci", "--no-audit", "--no-fund", cwd=front)
    if installed.returncode and re.search(r"ENOTFOUND|ECONN|EAI_AGAIN|ETIMEDOUT|network", installed.stderr):
        pytest.skip("no registry of npm packages can be reached")
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "built").mkdir()
    built = run("node", "build.mjs", str(tmp_path / "built"), cwd=front)
    assert built.returncode == 0, built.stderr
    for path in sorted((STATIC / "vendor").iterdir()):
        assert (tmp_path / "built" / path.name).read_bytes() == path.read_bytes(), (
            f"{path.name}: run `npm ci && npm run build` in web/front"
        )
