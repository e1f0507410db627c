"""The environment that tests run in: nothing of a user's own settings for Airflow, Exa or the network."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

#: Beginnings of variables that Airflow, the sample DAGs or OpenTelemetry read.
SETTINGS = ("AIRFLOW", "EXA_", "OTEL_")

#: Variables that HTTP clients read, in either case.
NETWORK = frozenset(
    {
        "all_proxy",
        "ftp_proxy",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "curl_ca_bundle",
        "netrc",
        "requests_ca_bundle",
        "ssl_cert_dir",
        "ssl_cert_file",
        "sslkeylogfile",
    }
)

#: Put before the name of a network variable that is set aside, so that child processes find it, too.
ASIDE = "SET_ASIDE_BY_TESTS_"


def isolate(environ: MutableMapping[str, str]) -> None:
    """Remove settings for Airflow and Exa, and set those for the network aside."""
    for name in list(environ):
        if name.upper().startswith(SETTINGS):
            del environ[name]
        elif name.lower() in NETWORK:
            environ[ASIDE + name] = environ.pop(name)


def with_network(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment with the user's settings for the network, which pip may need."""
    return {name.removeprefix(ASIDE): value for name, value in environ.items()}
