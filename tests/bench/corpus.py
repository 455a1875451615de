"""Folders like those of a Baileys bot: its families of files in the shares and sizes that the real client writes."""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Family, share of all files, smallest and largest size in bytes: measured on Baileys 7 with 340 contacts.
_FAMILIES = (
    ("pre-key", 0.27, 164, 164),
    ("lid-mapping", 0.27, 13, 17),
    ("session", 0.21, 885, 1257),
    ("device-list", 0.09, 5, 15),
    ("identity-key", 0.08, 71, 71),
    ("tctoken", 0.05, 115, 115),
    ("sender-key", 0.03, 1271, 3611),
)
_APP_STATE_BYTES = (502, 2879, 39_840)
_ME = "15550001234:7@s.whatsapp.net"


def write_folder(folder: Path, count: int) -> dict[str, bytes]:
    """Make ``folder`` with ``count`` files in it, the same ones each time; returns them."""
    files = dict(_files(count))
    folder.mkdir(mode=0o700)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


def creds(counter: int) -> bytes:
    """A paired ``creds.json`` of 2.5 KB that moves with ``counter`` where each login of a bot moves it."""
    dice = random.Random(1)
    pairs = ("noiseKey", "pairingEphemeralKeyPair", "signedIdentityKey", "signedPreKey")
    history = [
        {
            "key": {"remoteJid": _ME, "fromMe": True, "id": dice.randbytes(16).hex().upper()},
            "messageTimestamp": 1_790_000_000 + number,
        }
        for number in range(7)
    ]
    content = {
        **{name: {"private": _buffer(dice, 32), "public": _buffer(dice, 32)} for name in pairs},
        "registrationId": 2757,
        "advSecretKey": _text(dice, 44),
        "processedHistoryMessages": history,
        "nextPreKeyId": 813,
        "accountSyncCounter": counter,
        "account": {
            "details": _buffer(dice, 24),
            "accountSignatureKey": _buffer(dice, 32),
            "accountSignature": _buffer(dice, 64),
            "deviceSignature": _buffer(dice, 64),
        },
        "me": {"id": _ME, "lid": "100000000000001:7@lid", "name": "example"},
        "signalIdentities": [{"identifierKey": _buffer(dice, 33)}],
        "platform": "android",
        "routingInfo": _buffer(random.Random(counter), 7),
        "lastAccountSyncTimestamp": 1_790_000_000 + counter,
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _files(count: int) -> Iterator[tuple[str, bytes]]:
    dice = random.Random(count)
    yield "creds.json", creds(0)
    for number, size in enumerate(_APP_STATE_BYTES):
        yield f"app-state-sync-version-{number}.json", _json(dice, size)
    families = dice.choices(_FAMILIES, [share for _, share, _, _ in _FAMILIES], k=count - 1 - len(_APP_STATE_BYTES))
    for number, (family, _, smallest, largest) in enumerate(families):
        yield f"{family}-{100_000_000_000 + number}.json", _json(dice, dice.randint(smallest, largest))


def _json(dice: random.Random, size: int) -> bytes:
    return f'"{_text(dice, size - 2)}"'.encode()


def _buffer(dice: random.Random, size: int) -> dict[str, str]:
    return {"type": "Buffer", "data": base64.b64encode(dice.randbytes(size)).decode()}


def _text(dice: random.Random, length: int) -> str:
    """Base64 of random bytes: keys do not compress below that, and neither may these."""
    return base64.b64encode(dice.randbytes(length)).decode()[:length]
