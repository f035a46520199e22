"""The documentation is complete: every command, flag, setting, column and reject reason is there, and nothing stale."""

import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from packaging.version import Version
from support.rows import RUN_KEY, make_row

from handloom import __version__
from handloom.api import Database
from handloom.cli import app
from handloom.models.vision_language.prompts import PROMPTS
from handloom.schemas.camera_presets import PRESETS
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import (
    CLIP_LIST,
    JUDGEMENTS,
    QUALITY_FIELDS,
    REJECTS,
    RUNS,
    STAGE_REJECTS,
    clips_schema,
)
from handloom.schemas.tables.duplicates import DUPLICATES
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.reject import REASONS
from handloom.schemas.tables.robot import ROBOT_EPISODES
from handloom.schemas.tables.segments import SEGMENT
from handloom.schemas.tables.skills import SKILLS
from handloom.schemas.towers import CaptionSettings
from handloom.schemas.values import VIDEO_NOTES
from handloom.stages.registry import own_stages
from handloom.store.clip_features import CLIP_FEATURES
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.windows.statistics import SCHEMA as STATISTICS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "handloom"
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
MORE_PAGES = [ROOT / "SECURITY.md", *sorted((ROOT / "benchmarks").rglob("*.md"))]
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )?(?:[\w./]*/)?handloom\s[^`]*)`")


def leaves(command, name: str):
    """`(full name, command)` of the tree's leaves, and of its root."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    if name == "handloom":
        yield name, command
    for child in command.commands.values():
        yield from leaves(child, f"{name} {child.name}")


ROOT_COMMAND: Any = typer.main.get_command(app)
USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]  # typer has its own click, or takes the installed one
COMMANDS = dict(leaves(ROOT_COMMAND, "handloom"))


def sections(page: Path) -> dict[str, str]:
    """`{heading of level two: its text}`."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def flags(command) -> set[str]:
    return {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}


def rows_of(text: str) -> dict[str, list[str]]:
    """`{first cell without its backticks: all cells}` of the tables in a text."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells] for cells in lines}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_paths_that_the_architecture_names_are_there():
    """`pipelines/run/graph.py`, `geometry/sfm/`, and names beside the last one's folder."""
    text = (DOCS / "architecture.md").read_text()
    package = ROOT / "src/handloom"
    named = re.findall(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.py)?|[a-z_0-9]+\.py)`", text)
    assert len(named) > 60
    ends = {f"/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    folders = {f"/{path.relative_to(package).as_posix()}/" for path in package.rglob("*") if path.is_dir()}
    others = {f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("*/*.py")}
    there = ends | folders | others
    assert {one for one in named if not any(end.endswith(f"/{one}") for end in there)} == {"src/handloom/"}


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_reason_for_no_camera_path_is_explained():
    from handloom.geometry.camera.path import REASONS as PATH_REASONS

    assert set(rows_of(sections(DOCS / "geometry.md")["Cameras"])) == {*PATH_REASONS, "not_given"}


@pytest.mark.parametrize("name", COMMANDS)
def test_guide_has_every_command_and_flag(name):
    guide = sections(DOCS / "guide.md")
    assert name in guide, f"docs/guide.md has no section '## {name}'"
    entries = re.findall(r"^- (.+?):", guide[name], re.MULTILINE)
    described = {flag for entry in entries for flag in re.findall(r"`(-[^`]+)`", entry)}
    options = [param for param in COMMANDS[name].params if param.param_type_name == "option"]
    assert [param.opts for param in options if not described & {*param.opts, *param.secondary_opts}] == []
    assert described - flags(COMMANDS[name]) - {"--help"} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name):
    command = COMMANDS[name]
    assert command.help or name == "handloom"
    assert [param.name for param in command.params if not getattr(param, "help", None)] == []


def test_guide_has_no_command_that_does_not_exist():
    assert {title for title in sections(DOCS / "guide.md") if title.startswith("handloom")} == set(COMMANDS)


def commands_in(text: str) -> Iterator[tuple[list[str], bool]]:
    """The words after `handloom`, in backticks and in blocks of code; and whether it is a block, to be copied."""
    blocks = text.split("\n```")[1::2]
    for block in blocks:
        yield from ((words, True) for line in re.sub(r"\\\n\s*", " ", block).splitlines() for words in called(line))
    for block in blocks:
        text = text.replace(block, "")
    for code in INLINE.findall(text):
        yield from ((words, False) for words in called(" ".join(code.split())))


def called(line: str) -> Iterator[list[str]]:
    """The words after each `handloom` of a line of shell, up to a pipe or another end of a command."""
    if "handloom " not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] | None = None
    for token in (*lexer, ";"):
        if words is not None and set(token) <= set("|&;<>()"):
            yield words
            words = None
        elif words is not None:
            words.append(token)
        elif token == "handloom" or token.endswith("/handloom"):
            words = []


def fault_of(words: list[str], *, whole: bool) -> str | None:
    """What the command line says against these words. A mention (not `whole`) may leave out what must be given.

    Values in capitals, and variables, stand for any.
    """
    command, name, given = ROOT_COMMAND, "handloom", list(words)
    while given and given[0] in ("-v", "--verbose"):
        del given[0]
    if given[:1] in ([], ["--version"], ["--help"]) or any(word in ("...", "COMMAND", "FORMAT") for word in given[:2]):
        return None
    while hasattr(command, "commands"):
        if not given and not whole:
            return None
        if not given or given[0] not in command.commands:
            return f"{name} has no command {' '.join(given[:1])!r}"
        command, name = command.commands[given[0]], f"{name} {given.pop(0)}"
    try:
        command.make_context(name, given)
    except typer.Exit:  # --help
        return None
    except USAGE_ERROR as error:
        kind = type(error).__name__
        flag = next((word for word in words if word in getattr(getattr(error, "param", None), "opts", ())), None)
        value = words[words.index(flag) + 1] if flag in words[:-1] else ""
        any_value = kind == "BadParameter" and re.fullmatch(r"[A-Z]+|\$\w+", value)
        without_value = kind == "BadOptionUsage" and not whole
        left_out = kind == "MissingParameter" and (not whole or "..." in words)
        return None if any_value or without_value or left_out else error.format_message()
    return None


@pytest.mark.parametrize(
    ("words", "whole", "fault"),
    [
        ("run --db DB --set look.enabled=true", True, None),
        ("run --set look.enabled=true", False, None),
        ("run --set look.enabled=true", True, "Missing option '--db'"),
        ("run --db DB --databse x", False, "No such option"),
        ("run --db DB --limit many", False, "valid integer"),
        ("run --db DB --limit N", False, None),
        ("searhc --db DB", False, "no command"),
        ("sim", True, "no command"),
    ],
)
def test_a_wrong_command_is_noticed(words, whole, fault):
    found = fault_of(words.split(), whole=whole)
    assert (found is None) == (fault is None)
    assert fault is None or fault in found


def test_commands_of_a_line_are_found():
    line = "MUJOCO_GL=egl .venv/bin/handloom run --db 'a | b' 2>&1 | tee x; (handloom index --db b) # handloom no"
    assert list(called(line)) == [["run", "--db", "a | b", "2"], ["index", "--db", "b"]]
    page = "Say `handloom\nindex`:\n\n```sh\nhandloom run \\\n  --db x\n```\n\nand `handloom status`."
    assert list(commands_in(page)) == [(["run", "--db", "x"], True), (["index"], False), (["status"], False)]


@pytest.mark.parametrize("page", [*PAGES, *MORE_PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_are_parsed_by_the_command_line(page):
    """`handloom search --clip ID` in a page names a command that is there, flags that it takes and values that fit."""
    shown = list(commands_in(page.read_text()))
    faults = {"handloom " + " ".join(words): fault_of(words, whole=whole) for words, whole in shown}
    assert {command: fault for command, fault in faults.items() if fault is not None} == {}
    if page in (ROOT / "README.md", DOCS / "guide.md"):
        assert any(whole for _, whole in shown)


def test_commands_that_code_names_are_parsed_by_the_command_line():
    """In hints of errors, messages and docstrings; a text goes on in the next line's quotes, `{name}` is a value."""
    faults, num = {}, 0
    for file in [*PACKAGE.rglob("*.py"), *PACKAGE.glob("web/static/js/**/*.js")]:
        text = re.sub(r"\$?\{[^{}`]*\}", "VALUE", re.sub(r'"\s*\n\s*f?"', "", file.read_text()))
        for code in INLINE.findall(text):
            for words in called(" ".join(code.split())):
                num += 1
                if (fault := fault_of(words, whole=False)) is not None:
                    faults[f"{file.relative_to(PACKAGE)}: handloom {' '.join(words)}"] = fault
    assert faults == {}
    assert num > 200


def test_settings_page_is_fresh():
    page = runpy.run_path(str(DOCS / "make_settings.py"))["page"]()
    assert (DOCS / "settings.md").read_text() == page, "docs/settings.md is stale: run `make docs`"
    assert [name for name, row in rows_of(page).items() if not row[-1]] == []


OBJECTS = {"camera.source", "frames.frame_s", "frames.rgb", "video.motion"}
"""Of code in the pages."""


def test_settings_that_pages_name_are_there():
    """`camera.poses` and `--set frames.store=true`; keys of stages are those of `stages.NAME`."""
    names = set(rows_of((DOCS / "settings.md").read_text()))
    rooms = {name.partition(".")[0] for name in names if "." in name} - {"stages"}
    setting = re.compile(r"(?<![\w./])((?:" + "|".join(rooms) + r")\.(?!py\b)[a-z]\w*[a-z0-9])(?![\w(.])")
    named = {
        (name, page.name)
        for page in {*PAGES, *MORE_PAGES} - {ROOT / "CHANGELOG.md"}
        for code in re.findall(r"`([^`\n]+)`", page.read_text())
        for name in setting.findall(code)
    }
    assert len(named) > 60
    assert {(name, page) for name, page in named if name not in names | OBJECTS} == set()


def test_captions_page_has_every_setting_and_prompt():
    page = sections(DOCS / "captions.md")
    rows = rows_of(page["Settings of `Caption`"])
    assert set(rows) == set(CaptionSettings.model_fields)
    assert {name for name, row in rows.items() if row[-1].endswith("*")} == {
        name for name, setting in CaptionSettings.model_fields.items() if setting.exclude
    }
    assert set(rows_of(page["Prompts"])) == set(PROMPTS)


def test_speed_in_the_docs_is_that_of_the_report():
    made = runpy.run_path(str(DOCS / "make_speed.py"))
    written = made["BETWEEN"].search((DOCS / "benchmarks.md").read_text())
    assert written, "docs/benchmarks.md has lost its marks around the figures on speed"
    report = json.loads((ROOT / "benchmarks/results/extract.json").read_text())
    if "quick" not in report:
        pytest.skip("the report is one of 0.1.0: measure again, then run docs/make_speed.py")
    assert not report["quick"]
    assert not report["interrupted"]
    assert written[0] == made["figures"](), "stale: run docs/make_speed.py"


@pytest.mark.parametrize(("path", "marks"), [("docs/accuracy.md", 1), ("docs/benchmarks.md", 3)], ids=str)
def test_tables_of_accuracy_are_fresh(path, marks):
    made = runpy.run_path(str(DOCS / "make_benchmarks.py"))
    written = (ROOT / path).read_text()
    assert len(made["MARKS"].findall(written)) == marks
    assert made["page"](written) == written, "stale: run python docs/make_benchmarks.py"


GRID_POINTS = 6007  # prime: no other width is a multiple of it


def type_text(kind: pa.DataType, num_tracks: int) -> str:
    """A type as docs/tables.md writes it; widths that are multiples of N or of G as `2N`, `2G`."""
    if pa.types.is_fixed_size_list(kind):
        width = str(kind.list_size)
        for letter, number in (("N", num_tracks), ("G", GRID_POINTS)):
            if kind.list_size % number == 0:
                width = f"{kind.list_size // number if kind.list_size > number else ''}{letter}"
        return f"fsl<{type_text(kind.value_type, num_tracks)}>[{width}]"
    if pa.types.is_list(kind):
        return f"list<{type_text(kind.value_type, num_tracks)}>"
    if pa.types.is_struct(kind):
        return "struct"
    return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))


def test_tables_page_has_every_column_with_its_type():
    num_tracks = 7919  # prime: no other width is a multiple of it
    page = sections(DOCS / "tables.md")
    brought = [field for stage in own_stages(Settings()) for field in stage.fields]
    clips = pa.schema([*clips_schema(num_tracks, num_grid=GRID_POINTS), *brought, DUPLICATES.field(0)])
    added = pa.schema([field for field in clips if field.name not in CLIP_LIST.names])
    tables = {"clip_list": CLIP_LIST, "clips": added, "rejects": REJECTS, "runs": RUNS, "stage_rejects": STAGE_REJECTS}
    tables |= {"robot_episodes": ROBOT_EPISODES, "window_statistics": STATISTICS, "clip_features": CLIP_FEATURES}
    tables |= {"judgements": JUDGEMENTS}
    for table, schema in tables.items():
        text = page[table].split("### quality")[0]
        written = {name: row[1] for name, row in rows_of(text).items()}
        assert written == {field.name: type_text(field.type, num_tracks) for field in schema}, table
    assert set(rows_of(page["clips"].split("### quality")[1])) == set(QUALITY_FIELDS)


def test_segments_page_has_every_field_with_its_type():
    written = {name: row[1] for name, row in rows_of(sections(DOCS / "segments.md")["Columns"]).items()}
    assert written == {field.name: type_text(field.type, 7919) for field in SEGMENT}


def test_skills_page_has_every_column_with_its_type():
    written = {name: row[1] for name, row in rows_of(sections(DOCS / "skills.md")["The table `skills`"]).items()}
    assert written == {field.name: type_text(field.type, 7919) for field in SKILLS}


def test_filters_that_the_tables_page_gives_can_be_used(tmp_path):
    schema = clips_schema(4)
    db = Database.open(tmp_path, create=True)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, [make_row(0)], schema)], [])
    filters = re.findall(r"^\|[^|]+\| `([^`]+)` \|", sections(DOCS / "tables.md")["which numbers decide"], re.MULTILINE)
    assert len(filters) == 5
    assert [db.count("clips", where) for where in filters] == [0] * 5  # the row says next to nothing of its quality


def test_every_camera_preset_is_in_the_docs_with_its_numbers():
    text = (DOCS / "datasets.md").read_text().split("### Camera presets")[1].split("\n## ")[0]
    rows = {name: [*row[1:3], row[-1]] for name, row in rows_of(text).items()}
    assert rows == {p.name: [f"{p.fov_deg:g}", f"{p.focal_sigma:.0%}", p.origin] for p in PRESETS.values()}


def test_every_reason_is_explained():
    rows = rows_of((DOCS / "reasons.md").read_text())
    assert set(rows) == set(REASONS)
    assert [name for name, row in rows.items() if not all(row)] == []


def test_every_video_note_is_explained():
    notes = rows_of(sections(DOCS / "tables.md")["video notes"])
    assert {name: row[1] for name, row in notes.items()} == VIDEO_NOTES


def test_embeddings_page_has_the_widths():
    page = (DOCS / "embeddings.md").read_text()
    widths = [f"{EMBEDDINGS[name].dim}" for name in ("motion", "appearance")]
    assert f"| width | {widths[0]} | {widths[1]} |" in page
    for name, spec in EMBEDDINGS.items():
        blocks = rows_of(sections(DOCS / "embeddings.md")[name])
        assert sum(int(row[1]) for row in blocks.values()) == spec.dim


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_the_version_is_the_same_everywhere():
    """A development version is one of the version that the changelog's first section is about."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    first = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    version = Version(__version__)
    assert first == version.base_version + (" (unreleased)" if version.is_devrelease else "")


def is_there(name: str) -> bool:
    """Whether a dotted name below handloom is a package, a module, or stands in one."""
    folder = PACKAGE
    for number, part in enumerate(parts := name.removeprefix("handloom.").split(".")):
        if (folder / part).is_dir():
            folder /= part
            continue
        file = folder / f"{part}.py"
        inside = parts[number + 1 :] if file.exists() else parts[number:]
        text = (file if file.exists() else folder / "__init__.py").read_text()
        return not inside or re.search(rf"\b{inside[0]}\b", text) is not None
    return True


def test_names_in_docstrings_and_pages_are_there():
    """`store.clips.commit` and `video/grid.py`, wherever code or docs name them; `windows.loader` is an object's."""
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"windows", "video"}
    dotted = re.compile(r"`((?:handloom\.)?[a-z]\w*(?:\.\w+){2,})[`(]")
    paths = re.compile(r"`((?:" + "|".join(packages | {"windows", "video"}) + r")(?:/\w+)+\.py)`")
    stale = []
    for page in [*PACKAGE.rglob("*.py"), *PAGES]:
        if page.name == "CHANGELOG.md":  # it tells of modules that have moved since
            continue
        text = page.read_text()
        names = [name for name in dotted.findall(text) if name.removeprefix("handloom.").split(".")[0] in packages]
        names = [name for name in names if not name.startswith("stages.NAME.")]  # settings
        stale += [f"{page.name}: {name}" for name in names if not is_there(name)]
        stale += [f"{page.name}: {path}" for path in paths.findall(text) if not (PACKAGE / path).exists()]
    assert stale == []
