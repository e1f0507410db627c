"""Secrets taken out of texts, however they are written."""

from __future__ import annotations

import base64
import html
import json
import time
from itertools import product
from urllib.parse import quote, quote_plus

import pytest

from airflow_provider_exa.client.redaction import (
    MIN_BASE64_OF_BODY,
    MIN_PART,
    MIN_PART_OF_BODY,
    Redactor,
)

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


@pytest.mark.parametrize("key", [*KEYS, "k3y-1234"])
def test_a_body_stays_json(key: str) -> None:
    """The key is taken out of it, and nothing else."""
    page = {"id": "run_1", "echo": key, "text": f"<{key}>"}
    for body in (json.dumps(page), json.dumps(page).replace("k", r"\u006b")):
        assert json.loads(Redactor(key).body(body.encode())) == {
            "id": "run_1",
            "echo": "***",
            "text": "<***>",
        }


#: How a server writes a part of the key in JSON.
JSON_WAYS = {
    "plain": json.dumps,
    "json with \\/": lambda part: json.dumps(part).replace("/", r"\/"),
    "unicode escapes": lambda part: '"' + "".join(f"\\u{ord(char):04x}" for char in part) + '"',
    "upper case escapes": lambda part: '"' + "".join(f"\\u{ord(char):04X}" for char in part) + '"',
    "URL": lambda part: json.dumps(quote(part, safe="")),
    "form": lambda part: json.dumps(quote_plus(part)),
    "percent": lambda part: json.dumps("".join(f"%{ord(char):02x}" for char in part)),
    "upper case percent": lambda part: json.dumps("".join(f"%{ord(char):02X}" for char in part)),
    "HTML": lambda part: json.dumps(html.escape(part)),
    "Python's escapes": lambda part: json.dumps("".join(f"\\x{ord(char):02x}" for char in part)),
}


def parts_of(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(len(text) - size + 1)]


@pytest.mark.parametrize("way", JSON_WAYS)
@pytest.mark.parametrize("key", KEYS)
def test_a_long_part_of_a_key_is_taken_out_of_a_body(key: str, way: str) -> None:
    """Wherever the server cuts it."""
    redactor = Redactor(key)
    for size in (MIN_PART_OF_BODY, len(key) - 1, len(key)):
        for part in parts_of(key, size):
            body = f'{{"echo": [{JSON_WAYS[way](part)}]}}'.encode()
            assert redactor.body(body) == b'{"echo": ["***"]}'


@pytest.mark.parametrize("key", KEYS)
def test_a_short_part_of_a_key_is_left_in_a_body(key: str) -> None:
    """It may be one of a time."""
    body = json.dumps(parts_of(key, MIN_PART_OF_BODY - 1)).encode()
    assert Redactor(key).body(body) == body


@pytest.mark.parametrize("before", ["", "Bearer ", "user:"])
@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_base64_is_taken_out_of_a_body(key: str, before: str) -> None:
    """It begins at any place in a group of three bytes, and the server may cut it."""
    redactor = Redactor(key)
    encoded = base64.b64encode(f"{before}{key} and more".encode()).decode()
    start, stop = -(-len(before) * 8 // 6), len(before + key) * 8 // 6
    for part in parts_of(encoded[start:stop], MIN_BASE64_OF_BODY):
        assert redactor.body(f'["{part}"]'.encode()) == b'["***"]'
    (whole,) = json.loads(redactor.body(f'["{encoded}"]'.encode()))
    assert whole == f"{encoded[:start]}***{encoded[stop:]}"


def is_json(body: str) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("key", [*KEYS, 'fedcba98-n7654u321-\\-"-bcdefghijk\\mnop'])
def test_no_half_of_an_escape_is_left_in_a_body(key: str) -> None:
    """The end of an escape before a part may look like the character that the key has there."""
    escapes = (r"\u000{}", r"\\u000{}", r"\u{}", r"\{}", r"\\{}", r"\\\{}")
    for start, escape in product(range(1, len(key) - MIN_PART_OF_BODY), escapes):
        body = f'["{escape.format(key[start - 1])}{json.dumps(key[start:])[1:]}]'
        if is_json(body):
            assert is_json(Redactor(key).body(body.encode()).decode())


def test_a_short_made_up_key_leaves_answers_alone() -> None:
    """A stand-in's may be part of any word."""
    assert Redactor("m").body(b'{"id": "mon_a"}') == b'{"id": "mon_a"}'


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_large_body_costs_little(ascii_only: bool) -> None:
    """Sixteen megabytes are looked through in a fraction of a second, whatever else is escaped."""
    text = 'caf\u00e9, "words" & https://example.com/more%20words\n' * 250_000
    body = json.dumps({"text": text}, ensure_ascii=ascii_only).encode()
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
