from __future__ import annotations

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.weights.web_address import Digest, safe_name, web_address

SHA256 = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("top_down_256x192_global_small-d4a7fdac_20230724.pth", "d4a7fdac"),
        ("top_down_256x192_global_base-12345678_20230724.pth", "12345678"),
        ("resnet18-f37072fd.pth", "f37072fd"),
        (f"model-{SHA256}.safetensors", SHA256),
        ("model-d4a7fda.pth", None),
        ("model-20230724.pth", None),
        ("step-00012000.pt", None),
        ("model-d4a7fdac-final.pth", None),
        ("uniformer_small_in1k.pth", None),
    ],
)
def test_a_digest_in_a_file_name_is_taken_from_publishers_of_digests_and_from_nobody_else(
    name: str, digits: str | None
) -> None:
    for host in ("download.pytorch.org/models", "download.openmmlab.com"):
        digest = web_address(f"https://{host}/{name}").digest
        assert (None if digest is None else digest.digits) == digits
    assert web_address(f"https://example.org/{name}").digest is None


def test_the_digest_at_the_end_of_an_address_comes_before_the_names_and_is_not_sent() -> None:
    address = web_address(f"https://example.org/resnet18-f37072fd.pth#sha256={SHA256.upper()}")
    assert address.url == "https://example.org/resnet18-f37072fd.pth"
    assert address.digest == Digest(SHA256, "from the end of the address")


def test_the_digest_asked_for_comes_first() -> None:
    address = web_address("https://example.org/resnet18-f37072fd.pth", sha256="ABCDEF01")
    assert address.digest == Digest("abcdef01", "as was asked for")


def test_two_digests_that_agree_are_no_contradiction() -> None:
    address = web_address(f"https://example.org/a.pth#sha256={SHA256}", sha256=SHA256[:8])
    assert address.digest is not None
    assert address.digest.digits == SHA256[:8]


def test_two_digests_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match=r"^https://example.org/a.pth#sha256=01234567: sha256 ffffffff was asked for"):
        web_address("https://example.org/a.pth#sha256=01234567", sha256="ffffffff")


@pytest.mark.parametrize("sha256", ["", "0123456", "012345678x", "0" * 65])
def test_digits_that_are_no_sha256_are_refused(sha256: str) -> None:
    with pytest.raises(InputError, match="8 to 64 hexadecimal digits"):
        web_address("https://example.org/a.pth", sha256=sha256)


@pytest.mark.parametrize("fragment", ["sha265=01234567", "md5=0123456789", "readme"])
def test_anything_else_behind_an_address_is_refused_as_it_would_verify_nothing(fragment: str) -> None:
    with pytest.raises(InputError, match="only #sha256=<digits>"):
        web_address(f"https://example.org/a.pth#{fragment}")


@pytest.mark.parametrize(
    "text",
    [
        "http://example.org/a.pth",
        "http://localhost.example.org/a.pth",
        "http://127.0.0.1.example.org/a.pth",
        "http://user@example.org/a.pth",
        "ftp://example.org/a.pth",
    ],
)
def test_only_https_is_taken_from_other_machines(text: str) -> None:
    with pytest.raises(InputError, match="only https:// is fetched from"):
        web_address(text)


@pytest.mark.parametrize("host", ["localhost:80", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "user:word@localhost"])
def test_plain_http_is_taken_from_this_machine(host: str) -> None:
    assert web_address(f"http://{host}/a.pth").url == f"http://{host}/a.pth"


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "https:///a.pth",
        "https://host:port/a.pth",
        "https://[::1/a.pth",
        r"http://127.0.0.1\@example.org/a.pth",
        "https://exam ple.org/a.pth",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no web address"):
        web_address(text)


def test_login_and_query_are_not_shown() -> None:
    address = web_address("https://me:secret@example.org:8443/folder/a.pth?signature=secret")
    assert address.shown == "https://example.org:8443/folder/a.pth?..."


@pytest.mark.parametrize("text", ["https://example.org/a\nb.pth", "ftp://example.org/a\x1bb", "https://ho\rst:x/a"])
def test_an_error_stays_on_its_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        web_address(f"{text}#no")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/folder/a.pth", "a.pth"),
        ("/", "file"),
        ("", "file"),
        ("/..%2f..%2fetc%2fpasswd", "passwd"),
        ("/..%5c..%5cboot.ini", "boot.ini"),
        ("/..", "file"),
        ("/%2e%2e", "file"),
        ("/.bashrc", "bashrc"),
        ("/-rf", "rf"),
        ("/a%00b%0ac%20d.pth", "a_b_c_d.pth"),
        ("/gewichte%C3%BC.pth", "gewichte_.pth"),
        ("/a.pth?name=b.pth", "a.pth"),
    ],
)
def test_the_name_of_a_file_is_harmless(path: str, name: str) -> None:
    assert web_address(f"https://example.org{path}").file_name == name


def test_of_a_long_name_the_end_is_kept() -> None:
    name = safe_name("x" * 1000 + "-d4a7fdac_20230724.pth")
    assert len(name) == 120
    assert name.endswith("xx-d4a7fdac_20230724.pth")
