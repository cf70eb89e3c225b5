"""What is an address of a bundle, and where a redirect may lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import UsageError
from edgetrack.hub.address import HuggingFaceAddress, WebAddress, parse_address, require_allowed

PIN = "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b/c.zip", HuggingFaceAddress("a/b", None, "c.zip")),
        ("hf://a-1/b.2@v1.0/d/c.zip", HuggingFaceAddress("a-1/b.2", "v1.0", "d/c.zip")),
        (f"hf://a/b@main/c.zip#sha256={PIN}", HuggingFaceAddress("a/b", "main", "c.zip", PIN)),
        (f"https://h.org/x.zip#sha256={PIN}", WebAddress("https://h.org/x.zip", PIN)),
        ("https://h.org:8443/x?download=1", WebAddress("https://h.org:8443/x?download=1")),
        ("http://localhost:1/x.zip", WebAddress("http://localhost:1/x.zip")),
        ("http://[::1]:1/x.zip", WebAddress("http://[::1]:1/x.zip")),
    ],
)
def test_addresses(text: str, expected: object) -> None:
    found = parse_address(text)
    assert found == expected
    assert str(found) == text.partition("#")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("smat-onnx-fp32", "no address"),
        ("/tmp/a.zip", "no address"),
        ("file:///etc/passwd", "no address"),
        ("ftp://h.org/a.zip", "no address"),
        ("https:///a.zip", "no address"),
        ("https://h.org:x/a.zip", "no address"),
        ("http://h.org/a.zip", "plain HTTP"),
        ("http://localhost.evil.org/a.zip", "plain HTTP"),
        ("https://me:secret@h.org/a.zip", "user or password"),
        ("https://h.org/a b.zip", "no address"),
        ("https://h.org/a\n.zip", "no address"),
        ("https://h.org/a.zip#md5=1", "behind #"),
        ("https://h.org/a.zip#", "behind #"),
        (f"https://h.org/a.zip#sha256={PIN.upper()}", "behind #"),
        ("hf://a/b", "no address on Hugging Face"),
        ("hf://a/b/../c.zip", "no address on Hugging Face"),
        ("hf://a/b@x/y@z/c.zip", "no address on Hugging Face"),
        ("hf://a/b@/c.zip", "no address on Hugging Face"),
        ("https://h.org/" + "a" * 3000, "no address"),
    ],
)
def test_what_is_none_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60) | st.text(max_size=60).map("https://".__add__) | st.text(max_size=60).map("hf://".__add__))
def test_any_text_is_an_address_or_an_error_of_ours(text: str) -> None:
    try:
        found = parse_address(text)
    except UsageError:
        return
    assert parse_address(str(found)).sha256 is None


@pytest.mark.parametrize(
    ("before", "to", "allowed"),
    [
        ("https://a.org/x", "https://b.org/y", True),
        ("http://localhost:1/x", "http://127.0.0.1:2/y", True),
        ("http://localhost:1/x", "https://a.org/y", True),
        ("https://a.org/x", "http://a.org/x", False),
        ("https://a.org/x", "http://localhost/x", False),
        ("https://a.org/x", "https://localhost/x", False),
        ("https://a.org/x", "file:///etc/passwd", False),
        ("https://a.org/x", "https://u:p@b.org/x", False),
        ("http://localhost:1/x", "http://b.org/y", False),
    ],
)
def test_where_a_redirect_may_lead(before: str, to: str, allowed: bool) -> None:
    if allowed:
        require_allowed(to, before)
    else:
        with pytest.raises(UsageError):
            require_allowed(to, before)
