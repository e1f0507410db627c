"""Secrets taken out of texts, however they are written."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus

import pytest

from airflow_provider_exa.client.redaction import MIN_PART, Redactor

KEYS = [
    "12345678-90ab-cdef-1234-567890abcdef",
    "it's-a'key'with'quotes",
    'say-"hello"-to-the-key',
    "back\\slash\\key\\of\\mine",
    "slashes/and+plus=and%25&amp",
    "<angle>&brackets-key",
]

WAYS = {
    "plain": str,
    "repr": lambda key: repr(f"{key}'"),
    "json": json.dumps,
    "json twice": lambda key: json.dumps(json.dumps(key)),
    "json with \\/": lambda key: json.dumps(key).replace("/", r"\/"),
    "unicode escapes": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "upper case escapes": lambda key: "".join(f"\\u{ord(char):04X}" for char in key),
    "one escape": lambda key: key.replace("k", r"\u006b"),
    "URL": lambda key: quote(key, safe=""),
    "form": quote_plus,
    "HTML": html.escape,
    "HTML by number": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 after a user": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "base64 in the middle": lambda key: base64.b64encode(f"xx{key} and more".encode()).decode(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_found_however_it_is_written(key: str, way: str) -> None:
    """What is left of it is shorter than a part that would be taken out."""
    written = WAYS[way](key)
    told = Redactor(key).text(f"bad key <{written}>, {written} again")
    assert "***" in told
    for start in range(len(written) - 2 * MIN_PART):
        assert written[start : start + 2 * MIN_PART] not in told
    assert told.startswith("bad key <")
    assert told.endswith(" again")


@pytest.mark.parametrize("key", KEYS)
def test_a_part_of_a_key_is_taken_out(key: str) -> None:
    """A server may cut it, at either end."""
    redactor = Redactor(key)
    for part in (key[:MIN_PART], key[-MIN_PART:], key[3:-3], key[1:], key[:-1]):
        assert redactor.text(f"[{part}]") == "[***]"
    assert redactor.text(short := key[: MIN_PART - 1]) == short


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://user:word@proxy.corp:99999/x", "http://***@proxy.corp:99999/x"),
        ("see socks5://me@proxy and https://a:b@c.d.", "see socks5://***@proxy and https://***@c.d."),
        ("http://user:p@ss@proxy.corp", "http://***@proxy.corp"),
        ("https://api.exa.ai/a@b and c@d.e", "https://api.exa.ai/a@b and c@d.e"),
    ],
)
def test_user_info_is_taken_out_of_urls(text: str, told: str) -> None:
    """Also of those that this package does not know."""
    assert Redactor(KEYS[0]).text(text) == told


def test_a_password_of_a_proxy_is_taken_out() -> None:
    """Unless it is so short that it may be part of any word."""
    assert Redactor(KEYS[0], ["secret"]).text("my secret's out") == "my ***'s out"
    assert Redactor(KEYS[0], ["out"]).text("my secret's out") == "my secret's out"


@pytest.mark.parametrize("key", KEYS)
def test_a_body_stays_json(key: str) -> None:
    """The key is taken out of it, and nothing else."""
    page = {"id": "run_1", "echo": key, "text": f"<{key}>"}
    for body in (json.dumps(page), json.dumps(page).replace("k", r"\u006b")):
        assert json.loads(Redactor(key).body(body.encode())) == {
            "id": "run_1",
            "echo": "***",
            "text": "<***>",
        }


def test_a_short_made_up_key_leaves_answers_alone() -> None:
    """A stand-in's may be part of any word."""
    assert Redactor("m").body(b'{"id": "mon_a"}') == b'{"id": "mon_a"}'


def test_a_large_body_costs_little() -> None:
    """Sixteen megabytes are looked through in a fraction of a second."""
    body = json.dumps({"text": "words and more words " * 750_000}).encode()
    began = time.process_time()
    assert Redactor(KEYS[0]).body(body) == body
    assert time.process_time() - began < 0.5


def test_a_long_run_of_backslashes_costs_little() -> None:
    """Even where a character of the key is escaped, and each of them might begin another escape."""
    backslashes = "\\" * 100_000
    began = time.process_time()
    assert Redactor(KEYS[0]).body(rf"\u0030{backslashes}".encode()).count(b"\\") == 100_001
    assert Redactor(KEYS[0]).text(backslashes[:4096]) == backslashes[:4096]
    assert time.process_time() - began < 0.5
