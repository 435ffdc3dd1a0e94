"""One install for pip and for colcon (ament_python). The base runs the node and the replay; extras add the rest."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "bridgeta_ros"
HERE = Path(__file__).parent
EXPORT = [
    "onnx>=1.16,<2",
    "onnxscript>=0.3",
    "torch>=2.6,<3",
]  # what PyTorch writes the networks with that other back ends read


# nuscenes-devkit wants NumPy below 2, which has no wheels for Python 3.13: pip would compile it. There the devkit is
# left to `pip install --no-deps nuscenes-devkit`, as `make install` does it, and what it imports comes with the extra.
DEVKIT = [
    "nuscenes-devkit>=1.1.11,<2; python_version < '3.13'",
    *(
        f"{name}; python_version >= '3.13'"
        for name in ("cachetools", "descartes>=1.1", "Pillow>=10", "pyquaternion>=0.9.5", "scikit-learn>=1.5", "tqdm")
    ),
]


def list_files(folder: str) -> list[str]:
    """List a folder's files relative to this one, as data_files wants them."""
    return sorted(str(path.relative_to(HERE)) for path in (HERE / folder).iterdir() if path.is_file())


setup(
    name=PACKAGE,
    version="0.2.0",
    description="Camera-only bird's-eye-view map segmentation, distilled from a LiDAR-camera teacher, with ROS 2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="BridgeTA maintainers",
    maintainer_email="maintainers@bridgeta.invalid",
    packages=find_packages(include=["bridgeta_core*", "bridgeta_synth*", "bridgeta_ros*"]),
    package_data={
        "bridgeta_core": [
            "config/*.yaml",
            "config/studies/*.yaml",
            "deploy/pretrained/*.safetensors",
            "deploy/pretrained/*.json",
            "deploy/export/vehicle/README.md",
            "py.typed",
        ],
        "bridgeta_ros": ["bags/report/page.*"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *((f"share/{PACKAGE}/{folder}", list_files(folder)) for folder in ("launch", "config")),
    ],
    zip_safe=False,
    python_requires=">=3.10,<3.14",
    install_requires=[
        "huggingface_hub>=0.26",
        "lz4>=4",
        "mcap>=1.6,<2",
        "numpy>=1.23,<3",
        "omegaconf>=2.3,<3",
        "opencv-python-headless>=4.8,<5",
        "PyYAML>=6,<7",
        "protobuf>=4.22",
        "rich>=13",
        "rosbags>=0.10.4,<0.12",
        "rosbags-image>=0.10,<0.12",
        "safetensors>=0.4",
        "simplejpeg>=1.8,<2",
        "torch>=2.4,<3",
        "transformers>=4.45,<6",
        "typer>=0.12",
        "zstandard>=0.21",
    ],
    extras_require={
        "train": [
            *DEVKIT,
            "lightning>=2.6,<3",
            "matplotlib>=3.7,<4",
            "shapely>=2,<3",
            "tensorboard>=2.14",
        ],
        "onnxruntime": [*EXPORT, "onnxruntime>=1.17,<2"],
        "openvino": [*EXPORT, "openvino>=2024.4"],
        "dev": [
            *EXPORT,
            "colcon-common-extensions>=0.3",
            "hypothesis>=6.80",
            "mcap-ros2-support>=0.5",
            "mypy>=1.10",
            "onnxruntime>=1.17,<2",
            "openvino>=2024.4",
            "playwright>=1.45",
            "pytest>=8,<9",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "types-PyYAML",
        ],
        "test": ["pytest>=8,<9"],  # what makes `colcon test` run pytest
    },
    entry_points={
        "console_scripts": ["bridgeta = bridgeta_ros.cli:main", "bev_node = bridgeta_ros.node.main:main"],
    },
)
