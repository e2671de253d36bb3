"""Secrets do not get past the masker, whatever they stand in, and all else does."""

import base64
import random
import string
from pathlib import Path

import msgspec
import pytest

from bailee.sealing.masking import Masked, Masker, open_masker

_drawn = random.Random(7)
_LETTERS = string.ascii_letters + string.digits
_CAPITALS = string.ascii_uppercase + "234567"


def draw(count: int, alphabet: str = _LETTERS) -> str:
    return "".join(_drawn.choices(alphabet, k=count))


# Made up here, and nobody's.
SECRETS = {
    "anthropic-api-key": f"sk-ant-api03-{draw(93)}AA",
    "aws-access-key-id": f"AKIA{draw(16, _CAPITALS)}",
    "bailee-key": f"bailee_{draw(16, 'abcdef0123456789')}_{draw(64, 'abcdef0123456789')}",
    "gcp-api-key": f"AIza{draw(35)}",
    "generic-credential-uri": f"postgres://admin:{draw(20)}@db.internal.net:5432/x",
    "github-pat": f"ghp_{draw(36)}",
    "gitlab-pat": f"glpat-{draw(20)}",
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join(draw(64) for _ in range(20))
    + "\n-----END RSA PRIVATE KEY-----",
    "slack-bot-token": f"xoxb-{draw(12, string.digits)}-{draw(12, string.digits)}-{draw(24)}",
    "stripe-access-token": f"sk_live_{draw(24)}",
}
# What of it must not be left.
CORES = {kind: secret[12:40] for kind, secret in SECRETS.items()}
CORES["generic-credential-uri"] = SECRETS["generic-credential-uri"][17:37]
CORES["private-key"] = SECRETS["private-key"][40:90]


@pytest.fixture(scope="module")
def masker(tmp_path_factory: pytest.TempPathFactory) -> Masker:
    """Give a masker with the rules compiled anew, so that none of another version is used."""
    return open_masker(tmp_path_factory.mktemp("rules"))


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_masked_and_counted(masker: Masker, kind: str) -> None:
    """In plain text, and in JSON where it is escaped, twice included."""
    secret = SECRETS[kind]
    said = f"größer als é: {secret} and more"
    assert CORES[kind] in said  # Control: it is there before.
    text = masker.mask_text(said)
    assert text.kinds == {kind: 1}
    assert CORES[kind] not in text.text
    assert text.text.startswith("größer als é: ")
    assert text.text.endswith(" and more")
    for value in (
        {"content": [{"type": "text", "text": said}]},
        msgspec.json.encode({"inner": said}).decode(),
    ):
        masked = masker.mask_json(msgspec.json.encode(value))
        decoded = msgspec.json.encode(msgspec.json.decode(masked.text)).decode()
        assert CORES[kind].split("\n")[0] not in decoded
        assert sum(masked.kinds.values()) == decoded.count("[masked ") == 1


FORMS = {
    "netrc": "machine git.example login ada password {}",
    "pgpass": "db.example:5432:orders:ada:{}",
    "registry-auth": '{{"auths": {{"registry.example": {{"auth": "{}"}}}}}}',
    "azure-account-key": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}==;EndpointSuffix=x",
    "otpauth": "otpauth://totp/Acme:ada?secret={}&issuer=Acme",
    "password-hash": "ada:$apr1$Wq3kT7vq${}",
}
WORDS = {
    "azure-account-key": draw(86),
    "otpauth": draw(26, _CAPITALS),
    "password-hash": draw(22),
    "pgpass": "kT7vq2LmZr9",
}


@pytest.mark.parametrize("kind", FORMS)
def test_forms_that_hold_a_secret(masker: Masker, kind: str) -> None:
    """The files in which programs keep their passwords: the password goes, and the rest of the line stays."""
    secret = WORDS.get(kind, base64.b64encode(f"ada:{draw(20)}".encode()).decode())
    line = FORMS[kind].format(secret)
    for said in (line, f"first\n{line}\nlast"):
        text = masker.mask_text(said)
        assert secret not in text.text
        assert "[masked " in text.text
    masked = masker.mask_json(msgspec.json.encode({"text": f"1\t{line}"}))
    assert secret not in masked.text


@pytest.mark.parametrize(
    "text",
    [
        "machine learning login page password reset",
        "12:30:45:done:fine",
        "auth: none",
        "a.py:120:30:E501:too_long",
        "cost: $5$ or $6",
    ],
)
def test_what_only_looks_like_such_a_form(masker: Masker, text: str) -> None:
    """Words that stand in such lines otherwise are left alone."""
    assert masker.mask_text(text) == Masked(text, {})


def test_text_without_secrets_comes_back_as_it_is(masker: Masker) -> None:
    """This repository's own code among it; only what a second value of a name hides is gone."""
    twice = msgspec.json.encode(SECRETS["github-pat"]).decode()
    odd = f'{{"a" : 1.5, "b":"\\u00e9\\n", "c": {twice}, "c": [null, true]}}'
    assert masker.mask_json(odd.encode()) == Masked('{"a":1.5,"b":"é\\n","c":[null,true]}', {})
    for path in sorted((Path(__file__).parents[2] / "src").rglob("*.py")):
        if "tests" in path.parts:
            continue  # they make up credentials
        said = msgspec.json.encode({"role": "user", "content": path.read_text()})
        assert masker.mask_json(said).text.encode() == said, path


def test_names_values_and_pieces(masker: Masker) -> None:
    """A secret as a name, after a name that tells of it, in lines of their own, in base64."""
    token, pem = SECRETS["github-pat"], SECRETS["private-key"]
    other = f"ghp_{draw(36)}"
    masked = masker.mask_json(msgspec.json.encode({token: 1, other: 2}))
    assert list(msgspec.json.decode(masked.text).values()) == [1, 2]
    assert token not in masked.text
    assert other not in masked.text
    named = masker.mask_json(msgspec.json.encode({"db": {"password": (password := f"x7{draw(18)}4")}}))
    assert password not in named.text
    lines = masker.mask_json(msgspec.json.encode(pem.split("\n")))
    assert not [line for line in pem.split("\n")[1:-1] if line in lines.text]
    hidden = base64.b64encode(f"token={token} is it".encode()).decode()
    assert hidden not in masker.mask_text(f"config: {hidden}\n").text


@pytest.mark.parametrize("before", ["\ufeff", "a\0b\0c\0d\0" * 40, "\0" * 9])
def test_what_looks_like_another_encoding(masker: Masker, before: str) -> None:
    """Text that a scanner may take for UTF-16 is masked at the right place."""
    masked = masker.mask_text(f"{before}\n{SECRETS['github-pat']}\nend")
    assert masked.text == f"{before}\n[masked github-pat]\nend"


@pytest.mark.parametrize("broken", [b"{", b"\xff", b'"\xff"', b"[" * 100_000])
def test_no_json(masker: Masker, broken: bytes) -> None:
    """What cannot be laid out is refused, not let through."""
    with pytest.raises(ValueError, match="no JSON"):
        masker.mask_json(broken)
