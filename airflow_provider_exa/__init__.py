"""Apache Airflow provider for Exa: wait for monitor runs and act on how they ended."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

__version__ = version("airflow-provider-exa")


def get_provider_info() -> dict[str, Any]:
    """
    Describe this provider to Airflow, and the connection form to its UI.

    Airflow reads it in every process that starts, so this module imports nothing of Airflow's.
    """
    return {
        "package-name": "airflow-provider-exa",
        "name": "Exa",
        "description": "Wait for Exa monitor runs and act on how they ended.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Exa",
                "external-doc-url": "https://docs.exa.ai/websets",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "Exa", "python-modules": ["airflow_provider_exa.hooks"]}],
        "operators": [{"integration-name": "Exa", "python-modules": ["airflow_provider_exa.operators"]}],
        "sensors": [{"integration-name": "Exa", "python-modules": ["airflow_provider_exa.sensors"]}],
        "triggers": [{"integration-name": "Exa", "python-modules": ["airflow_provider_exa.triggers"]}],
        "extra-links": ["airflow_provider_exa.links.ExaWebsetLink"],
        "asset-uris": [{"schemes": ["exa"], "handler": None}],
        "connection-types": [
            {
                "connection-type": "exa",
                "hook-class-name": "airflow_provider_exa.hooks.ExaHook",
                "hook-name": "Exa",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {"host": "https://api.exa.ai"},
                },
                "conn-fields": {
                    "timeout": {
                        "label": "Timeout",
                        "description": "Seconds to wait for one answer.",
                        "schema": {"type": ["number", "null"], "default": 30},
                    },
                    "retries": {
                        "label": "Retries",
                        "description": "How often one request is repeated when Exa cannot answer it.",
                        "schema": {"type": ["integer", "null"], "default": 4},
                    },
                    "verify": {
                        "label": "Verify TLS",
                        "description": "Whether the server's certificate is checked.",
                        "schema": {"type": ["boolean", "null"], "default": True},
                    },
                    "ca_file": {
                        "label": "CA file",
                        "description": "Path of a CA bundle to trust instead of the system's.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "proxy": {
                        "label": "Proxy",
                        "description": "URL of an HTTP proxy; without it the environment decides.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                },
            }
        ],
    }
