"""What Airflow is told of the provider."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution, version
from pkgutil import resolve_name
from typing import Any

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

import airflow_provider_exa
from airflow_provider_exa import get_provider_info
from airflow_provider_exa.client.settings import EXTRAS
from airflow_provider_exa.hooks import ExaHook

KNOWN_KEYS = {
    "package-name",
    "name",
    "description",
    "versions",
    "integrations",
    "hooks",
    "operators",
    "sensors",
    "triggers",
    "extra-links",
    "asset-uris",
    "connection-types",
}


def test_airflow_finds_the_provider_by_its_entry_point() -> None:
    """The group and the package's name are what Airflow's discovery goes by."""
    (entry,) = distribution("airflow-provider-exa").entry_points.select(group="apache_airflow_provider")
    assert entry.load() is get_provider_info
    provider = ProvidersManager().providers["airflow-provider-exa"]
    assert provider.version == version("airflow-provider-exa") == airflow_provider_exa.__version__


def test_the_provider_info_has_no_key_that_airflow_does_not_know() -> None:
    """Airflow's own check lets unknown keys, and so typing errors, pass."""
    assert set(get_provider_info()) == KNOWN_KEYS


def class_paths(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [path for each in value.values() for path in class_paths(each)]
    if isinstance(value, list):
        return [path for each in value for path in class_paths(each)]
    return [value] if isinstance(value, str) and value.startswith("airflow_provider_exa.") else []


@pytest.mark.parametrize("path", class_paths(get_provider_info()))
def test_every_path_in_the_provider_info_can_be_imported(path: str) -> None:
    """A path that does not resolve is found only when a user opens the UI."""
    assert resolve_name(path)


def test_the_connection_form_has_what_the_hook_reads() -> None:
    """Each extra has a field, and fields that mean nothing to Exa are hidden."""
    (form,) = get_provider_info()["connection-types"]
    assert form["connection-type"] == ExaHook.conn_type
    assert form["conn-fields"].keys() == EXTRAS.keys()
    assert form["ui-field-behaviour"]["hidden-fields"] == ["schema", "login", "port"]
    assert ProvidersManagerTaskRuntime().hooks["exa"].hook_class_name == "airflow_provider_exa.hooks.ExaHook"
    assert "extra__exa__timeout" in ProvidersManager().connection_form_widgets


@pytest.mark.package
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("airflow_provider_exa", "airflow"),
        ("airflow_provider_exa.protocol.errors", "requests"),
        ("airflow_provider_exa.sensors", "requests"),
        ("airflow_provider_exa.operators", "requests"),
        ("airflow_provider_exa.triggers", "requests"),
        ("airflow_provider_exa.assets", "requests"),
    ],
)
def test_importing_a_module_leaves_out_what_is_heavy(module: str, absent: str) -> None:
    """Every DAG file pays for its imports at every parse."""
    code = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


#: What a DAG file that has imported ``airflow.sdk`` pays for: CPU seconds, and the modules that are new. A
#: pass of the garbage collector would cost a tenth of a second and say nothing of the imports.
COST_OF_IMPORTS = """
import gc, json, sys, time
import airflow.sdk
gc.collect()
gc.disable()
before, began = set(sys.modules), time.process_time()
import airflow_provider_exa.assets, airflow_provider_exa.operators, airflow_provider_exa.sensors
print(json.dumps([time.process_time() - began, sorted(set(sys.modules) - before)]))
"""
MAX_IMPORT_SECONDS = 0.06


@pytest.mark.package
def test_the_doors_import_little_beyond_airflows_sdk() -> None:
    """Sensors, operators and assets take at most 60 ms of CPU, and no package that is new."""
    costs = []
    for _ in range(5):
        command = [sys.executable, "-c", COST_OF_IMPORTS]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, modules = json.loads(done.stdout.splitlines()[-1])
        costs.append(seconds)
    packages = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    # Of pydantic, which Airflow's SDK has loaded, a part is loaded at its first use.
    assert packages <= {"airflow", "airflow_provider_exa", "pendulum", "pydantic", "tenacity"}
    assert not {name for name in modules if name.startswith(("airflow.models", "airflow.serialization"))}
    # A busy machine slows every measurement down, never speeds one up: the least is the nearest to the truth.
    assert min(costs) <= MAX_IMPORT_SECONDS, (costs, modules)
