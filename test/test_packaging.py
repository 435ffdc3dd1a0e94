"""What an installation brings along, and that files written by hand agree with the code."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bridgeta_core.deploy.weights import find_weights, read_info
from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_ros.bags.convert import LIDAR_TOPIC
from bridgeta_ros.node.parameters import NodeParameters, list_parameters
from bridgeta_ros.pipeline import messages, topics

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = ("bev.launch.py", "replay.launch.py")
CHANNELS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
# Python packages of ROS that come in a package of another name.
PACKAGE_OF = {"tf2_ros": "tf2_ros_py"}
# Plugins of rviz_common and rviz_default_plugins on both Humble and Jazzy.
RVIZ_CLASSES = {
    "rviz_common": {"Displays", "Group", "Views"},
    "rviz_default_plugins": {
        *("FocusCamera", "Interact", "Measure", "MoveCamera", "Select"),
        *("Grid", "Image", "Map", "Orbit", "PointCloud2", "TF"),
    },
}


def known_topics() -> set[str]:
    """Topics of a node without a namespace, and of a bag of `bridgeta bag`."""
    published = {*messages.list_output_topics(), "/diagnostics"}
    published |= {f"{topics.LOCAL_MAP}/{name}" for name in CLASS_NAMES}
    published |= {f"/bev_node/latency/{stage}" for stage in topics.LATENCIES}
    recorded = {LIDAR_TOPIC, topics.TF, topics.TF_STATIC}
    recorded |= {f"{topics.GROUND_TRUTH}/{name}" for name in CLASS_NAMES}
    recorded |= {t for c in CHANNELS for t in (topics.to_image_topic(c), topics.to_info_topic(c))}
    return published | recorded


@pytest.fixture(scope="module")
def package() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def setup_arguments() -> dict[str, Any]:
    """What setup.py tells setuptools."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return dict(setup.call_args.kwargs)


@pytest.mark.parametrize("field", ["name", "version", "license"])
def test_package_xml_and_setup_py_agree(package: ElementTree.Element, setup_arguments: dict[str, Any], field: str):
    assert package.findtext(field) == setup_arguments[field]


def test_every_launch_and_config_file_is_installed(setup_arguments: dict[str, Any]):
    installed = dict(setup_arguments["data_files"])
    for folder in ("launch", "config"):
        there = {f"{folder}/{path.name}" for path in (ROOT / folder).iterdir() if path.is_file()}
        assert there
        assert set(installed[f"share/bridgeta_ros/{folder}"]) == there


def test_every_file_beside_the_code_is_installed(setup_arguments: dict[str, Any]):
    for package, patterns in setup_arguments["package_data"].items():
        files = {path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*.*") if path.is_file()}
        data = {path for path in files if path.suffix not in (".py", ".pyc")}
        assert data
        assert not [path for path in data if not any(path.match(pattern) for pattern in patterns)]


def test_the_package_is_in_the_index_of_ros(setup_arguments: dict[str, Any]):
    installed = dict(setup_arguments["data_files"])
    assert installed["share/ament_index/resource_index/packages"] == ["resource/bridgeta_ros"]
    assert (ROOT / "resource" / "bridgeta_ros").is_file()


def test_every_executable_is_a_function(setup_arguments: dict[str, Any]):
    scripts = dict(entry.split(" = ") for entry in setup_arguments["entry_points"]["console_scripts"])
    assert {"bridgeta", "bev_node"} <= scripts.keys()
    for target in scripts.values():
        module, function = target.split(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("python", "old_numpy"), [("3.10", True), ("3.12", True), ("3.13", False)])
def test_nothing_that_needs_numpy_1_is_asked_for_on_python_3_13(
    setup_arguments: dict[str, Any], python: str, old_numpy: bool
):
    train = [Requirement(text) for text in setup_arguments["extras_require"]["train"]]
    wanted = {r.name for r in train if r.marker is None or r.marker.evaluate({"python_version": python})}
    assert ("nuscenes-devkit" in wanted) == old_numpy


@pytest.mark.parametrize("version", ["1.26.4", "2.0.0", "2.4.6"])
def test_numpy_1_and_2_are_allowed(setup_arguments: dict[str, Any], version: str):
    (numpy,) = [r for r in map(Requirement, setup_arguments["install_requires"]) if r.name == "numpy"]
    assert version in numpy.specifier


@pytest.mark.parametrize("python", ["3.10.0", "3.11.7", "3.12.1", "3.13.0"])
def test_setup_py_make_and_ci_agree_on_the_versions_of_python(setup_arguments: dict[str, Any], python: str):
    assert python in SpecifierSet(setup_arguments["python_requires"])
    major, minor, _ = python.split(".")
    assert f"python{major}.{minor}" in (ROOT / "Makefile").read_text()
    assert (
        f"{major}.{minor}"
        in yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["make"]["strategy"]["matrix"][
            "python"
        ]
    )


def test_package_xml_names_every_ros_package_that_is_used(
    package: ElementTree.Element, setup_arguments: dict[str, Any]
):
    declared = {element.text for element in package.findall("exec_depend")}
    assert None not in declared
    by_pip = {re.split(r"[<>=~]", line)[0].lower() for line in setup_arguments["install_requires"]}
    by_pip |= {"cv2", "google", "yaml"}
    ours = {"bridgeta_core", "bridgeta_synth", "bridgeta_ros"}
    used = set()
    for path in [*(ROOT / "bridgeta_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add((node.module or "").partition(".")[0])
        used |= set(re.findall(r'"(\w+)/(?:msg|srv)/\w+"', text))
    ros = {PACKAGE_OF.get(name, name) for name in used - sys.stdlib_module_names - by_pip - ours}
    assert "rclpy" in ros
    assert ros <= declared


def test_the_parameters_file_shows_the_defaults():
    content = yaml.safe_load((ROOT / "config" / "bev_node.yaml").read_text())
    assert list(content) == ["/**"]
    values = dict(flat(content["/**"]["ros__parameters"]))
    table = {parameter.name: parameter.default for parameter in list_parameters()}
    assert values.keys() <= table.keys()
    assert values == {name: table[name] for name in values}
    assert {name: type(value) for name, value in values.items()} == {name: type(table[name]) for name in values}
    assert NodeParameters.from_flat(values) == NodeParameters()


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def test_the_parameters_file_says_when_a_new_value_takes_effect():
    effects = {p.name.rpartition(".")[2]: p.effect for p in list_parameters()}
    for line in (ROOT / "config" / "bev_node.yaml").read_text().splitlines():
        if match := re.match(r"\s+(\w+): \S.*?(?:\[(.+)\])?$", line):
            name, told = match.groups()
            assert told == (None if effects[name] == "configure" else effects[name]), line


def test_the_cameras_are_those_of_the_weights_on_the_topics_of_a_bag():
    content = yaml.safe_load((ROOT / "config" / "nuscenes_cameras.yaml").read_text())
    channels = read_info(find_weights("tiny")).cameras
    assert list(content["cameras"]) == [channel.lower() for channel in channels]
    for channel, camera in zip(channels, content["cameras"].values(), strict=True):
        assert f"{camera['image']}/compressed" == topics.to_image_topic(channel)
        assert camera["camera_info"] == topics.to_info_topic(channel)


@pytest.fixture(scope="module")
def rviz() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "config" / "bev.rviz").read_text())
    assert isinstance(content, dict)
    return content


def displays(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield entry
        yield from displays(entry.get("Displays", []))


def classes(node: Any) -> Iterator[str]:
    """Every plugin that a layout names."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and node.get("Class"):
        yield node["Class"]
    for child in children:
        yield from classes(child)


def test_rviz_has_the_plugins_of_the_layout(rviz: dict[str, Any]):
    found = set(classes(rviz))
    assert "rviz_default_plugins/Map" in found
    assert found <= {f"{library}/{name}" for library, names in RVIZ_CLASSES.items() for name in names}


def test_rviz_shows_what_the_node_publishes_and_a_bag_has(rviz: dict[str, Any]):
    shown = {}
    for display in displays(rviz["Visualization Manager"]["Displays"]):
        if "Topic" in display:
            # A name without a leading / is relative to the namespace, which is / here.
            shown["/" + display["Topic"]["Value"].lstrip("/")] = display
    assert shown.keys() <= known_topics()
    assert shown.keys() >= {*messages.list_output_topics(), *map(topics.to_image_topic, CHANNELS), LIDAR_TOPIC}
    for topic, display in shown.items():
        profile = display["Topic"]
        if topic.startswith(topics.BEV):
            assert (profile["Reliability Policy"], profile["Durability Policy"]) == ("Reliable", "Transient Local")
        else:
            assert (profile["Reliability Policy"], profile["Durability Policy"]) == ("Best Effort", "Volatile")


def test_rviz_finds_what_the_node_publishes_in_any_namespace(rviz: dict[str, Any]):
    values = [d["Topic"]["Value"] for d in displays(rviz["Visualization Manager"]["Displays"]) if "Topic" in d]
    assert not [value for value in values if value.startswith(topics.BEV)]


@pytest.fixture(scope="module")
def foxglove() -> dict[str, Any]:
    content = json.loads((ROOT / "config" / "foxglove.json").read_text())
    assert isinstance(content, dict)
    return content


def test_foxglove_lays_out_each_of_its_panels_once(foxglove: dict[str, Any]):
    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            assert node["direction"] in ("row", "column")
            yield from (*leaves(node["first"]), *leaves(node["second"]))

    assert sorted(leaves(foxglove["layout"])) == sorted(foxglove["configById"])


def test_foxglove_shows_what_the_node_publishes_and_a_bag_has(foxglove: dict[str, Any]):
    shown = set()
    for panel in foxglove["configById"].values():
        shown |= set(panel.get("topics", {}))
        shown |= {value for key, value in panel.get("imageMode", {}).items() if key.endswith("Topic")}
        shown |= {path["value"].partition(".")[0] for path in panel.get("paths", [])}
        shown |= {panel["topicToRender"]} if "topicToRender" in panel else set()
    assert shown <= known_topics()
    assert shown >= {*messages.list_output_topics(), *map(topics.to_image_topic, CHANNELS), "/bev_node/latency/total"}


@pytest.mark.parametrize("where", [topics.BEV, topics.LOCAL_MAP, topics.GROUND_TRUTH])
def test_foxglove_gives_each_class_its_colour(foxglove: dict[str, Any], where: str):
    for cls in CLASSES:
        grid = foxglove["configById"]["3D!bev"]["topics"][f"{where}/{cls.name}"]
        red, green, blue = cls.colour
        assert grid["maxColor"] == f"#{red:02x}{green:02x}{blue:02x}ff"
        assert grid["minColor"] == f"#{red:02x}{green:02x}{blue:02x}00"


@pytest.mark.parametrize("file", LAUNCH_FILES)
def test_launch_files_compile(file: str):
    tree = ast.parse((ROOT / "launch" / file).read_text(), file)
    assert "generate_launch_description" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file", LAUNCH_FILES)
def test_every_argument_of_a_launch_file_is_described(file: str):
    pytest.importorskip("launch_ros", reason="no ROS 2: source /opt/ros/DISTRO/setup.bash")
    from launch import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(ROOT / "launch" / file))
    arguments = {a.name: a for a in source.get_launch_description(LaunchContext()).get_launch_arguments()}
    assert {"params_file", "cameras_file", "namespace", "weights", "rviz"} <= arguments.keys()
    assert ("bag" in arguments) == (file == "replay.launch.py")
    for name, argument in arguments.items():
        assert argument.description != "no description given", name
        default = argument.default_value
        if name.endswith(("_file", "_config")):
            assert Path(default[0].text).is_file()


def test_the_security_policy_names_the_topics_of_the_node():
    policy = ElementTree.parse(ROOT / "config" / "sros2_policy.xml").getroot()
    allowed = {
        kind: [e.text for group in policy.iter("topics") if group.get(kind) == "ALLOW" for e in group]
        for kind in ("publish", "subscribe")
    }
    published = [topics.NAVIGATION, topics.BEV_IMAGE, f"{topics.LOCAL_MAP}/divider", f"{topics.BEV}/divider"]
    published += [f"/bev_node/latency/{stage}" for stage in topics.LATENCIES]
    read = [topics.TF, topics.TF_STATIC, "/bev_node/input/cam_front/image/compressed"]
    for kind, names in (("publish", published), ("subscribe", read)):
        for name in names:
            assert any(fnmatch(name, str(pattern)) for pattern in allowed[kind]), name


def test_a_source_distribution_makes_the_wheel_of_the_checkout(tmp_path: Path):
    """All that is installed: the packages with their data, and what colcon and `ros2 launch` look for."""
    tree = tmp_path / "tree"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # not one that is being deleted
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    build = [sys.executable, "setup.py", "--quiet"]
    subprocess.run([*build, "sdist", "--dist-dir", str(tmp_path)], cwd=tree, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    subprocess.run([*build, "bdist_wheel", "--dist-dir", str(tmp_path)], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = set(zipfile.ZipFile(wheel).namelist())
    packages = ("bridgeta_core", "bridgeta_ros", "bridgeta_synth")
    wanted = {str(path.relative_to(tree)) for name in packages for path in (tree / name).rglob("*") if path.is_file()}
    assert wanted <= installed
    data = f"{wheel.name.rsplit('-', 3)[0]}.data/data/share/bridgeta_ros"
    for folder in ("launch", "config"):
        assert {f"{data}/{folder}/{path.name}" for path in (tree / folder).iterdir()} <= installed
    assert f"{data}/package.xml" in installed
