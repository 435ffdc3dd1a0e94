"""The face of the package, which loads what it shows on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bridgeta_core


def test_importing_the_package_loads_neither_torch_nor_numpy():
    code = "import sys, bridgeta_core; dir(bridgeta_core); print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_every_name_of_the_face_is_the_class_of_that_name():
    from bridgeta_core import Rig, Runtime

    assert (Rig.__module__, Runtime.__module__) == ("bridgeta_core.geometry.rig", "bridgeta_core.deploy.runtime")
    for name in bridgeta_core.__all__:
        assert getattr(bridgeta_core, name).__name__ == name
    assert set(bridgeta_core.__all__) <= set(dir(bridgeta_core))


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'bridgeta_core' has no attribute 'Student'"):
        bridgeta_core.Student  # noqa: B018
