"""What AngelOS computes, computed again by other code: hashes, roots, signatures.

Nothing of AngelOS is imported here, so that a mistake there is not made twice. The constants
are those of the documented formats.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey


def sha256(content: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def public_key(path: Path) -> Ed25519PublicKey:
    """Return the public half of a key file (32 bytes of seed)."""
    return Ed25519PrivateKey.from_private_bytes(path.read_bytes()).public_key()


def canonical(value: Any) -> bytes:
    """Return JSON without spaces, as it is hashed."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return MTH(D[n]) of RFC 6962, section 2.1, word for word: recursive, over the bodies."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = merkle_root(leaves[:k]), merkle_root(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def checkpoint(note: str, vkeys: str) -> tuple[int, bytes]:
    """Return (size, root) of a C2SP checkpoint that both keys of a line of vkeys have signed.

    Raises:
        InvalidSignature: One of the signatures is wrong.
    """
    text, _, signatures = note.rpartition("\n\n")
    origin, size, root = text.splitlines()
    blobs = {}
    for line in signatures.splitlines():
        _, name, encoded = line.split(" ")
        assert name == origin
        blob = base64.b64decode(encoded)
        blobs[blob[:4].hex()] = blob[4:]
    (epoch,) = [line.split(" ") for line in vkeys.splitlines() if line.split("+")[1] in blobs]
    for vkey in epoch:
        name, key_id, encoded = vkey.split("+", 2)
        material = base64.b64decode(encoded)
        assert name == origin
        assert hashlib.sha256(name.encode() + b"\n" + material).hexdigest()[:8] == key_id
        if material[0] == 1:
            key = Ed25519PublicKey.from_public_bytes(material[1:])
            key.verify(blobs[key_id], (text + "\n").encode())
        else:
            assert material[0] == 6  # tlog-cosignature: a time, then ML-DSA-44 over the struct
            stamp, signature = blobs[key_id][:8], blobs[key_id][8:]
            message = b"subtree/v1\n\0"
            message += bytes([len(name)]) + name.encode() + stamp
            message += bytes([len(origin)]) + origin.encode()
            message += bytes(8) + int(size).to_bytes(8, "big") + base64.b64decode(root)
            MLDSA44PublicKey.from_public_bytes(material[1:]).verify(signature, message)
    assert len(epoch) == 2
    return int(size), base64.b64decode(root)


def tree_hash(files: Mapping[str, tuple[int, bytes]]) -> str:
    """Return the hash of a tree of path -> (mode, content), by docs/reference/formats.

    A directory is `["leaf", [[name, mode, hash, size]]]`; of more than 64 names it is
    `["fan", [[hash, count] or nil] * 16]`, by the digits of SHA-256(name).
    """
    names: dict[str, Any] = {}
    for path, file in files.items():
        *folders, name = path.split("/")
        here = names
        for folder in folders:
            here = here.setdefault(folder, {})
        here[name] = file
    return _directory(names, 0)[0]


def _directory(names: Mapping[str, Any], depth: int) -> tuple[str, int]:
    if len(names) <= 64:
        rows = []
        for name in sorted(names, key=str.encode):
            entry = names[name]
            if isinstance(entry, dict):
                rows.append([name, 0o040000, bytes.fromhex(_directory(entry, 0)[0]), 0])
            else:
                mode, content = entry
                rows.append([name, mode, hashlib.sha256(content).digest(), len(content)])
        body = msgspec.msgpack.encode(["leaf", rows])
    else:
        slots: list[dict[str, Any]] = [{} for _ in range(16)]
        for name, entry in names.items():
            slots[int(sha256(name.encode())[depth], 16)][name] = entry
        parts = [_directory(slot, depth + 1) if slot else None for slot in slots]
        fan = [part and [bytes.fromhex(part[0]), part[1]] for part in parts]
        body = msgspec.msgpack.encode(["fan", fan])
    return sha256(b"angelos.directory.v2\0" + body), len(names)


def files_on_disk(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return path -> (mode as committed, content) of a checkout."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            mode = 0o100755 if path.stat().st_mode & 0o100 else 0o100644
            found[path.relative_to(folder).as_posix()] = (mode, path.read_bytes())
    return found


def check_commit(signed: Mapping[str, Any], key: Ed25519PublicKey) -> None:
    """Raise unless a stored commit has the hash it goes by and the repository's signature."""
    assert sha256(b"angelos.commit.v2\0" + signed["body"]) == signed["revision"]
    key.verify(signed["signature"], b"angelos.commit.v2\0" + signed["revision"].encode())


def read_fact(body: bytes) -> dict[str, Any]:
    """Return a fact: MessagePack of its header, in which `data` are MessagePack once more."""
    fact = msgspec.msgpack.decode(body)
    return fact | {"data": msgspec.msgpack.decode(fact["data"])}


def read_leaf(body: bytes, salt: bytes, data: bytes) -> dict[str, Any]:
    """Return the fact of a leaf of the audit log; raise unless the leaf commits to its data.

    RFC 8785 orders the names and writes whole numbers without a point.
    """
    leaf = json.loads(body)
    assert json.dumps(leaf, separators=(",", ":"), sort_keys=True, ensure_ascii=False) == (
        body.decode()
    )
    if data == b"\x80":
        assert "commitment" not in leaf
    else:
        assert leaf["commitment"] == hashlib.sha256(salt + data).hexdigest()
    decoded = msgspec.msgpack.decode(data)
    for name, shown in leaf.get("public", {}).items():
        assert decoded[name] == shown
    assert leaf["v"] == 2
    header = {name: leaf[name] for name in leaf if name not in {"v", "public", "commitment"}}
    return header | {"data": decoded}


def check_command(body: bytes, key: Ed25519PublicKey) -> dict[str, Any]:
    """Return a command's payload; raise unless its grant is signed and fits just this payload."""
    command = msgspec.msgpack.decode(body)
    signed = command["grant"]
    key.verify(signed["signature"], b"angelos.grant.v1\0" + signed["body"])
    grant = msgspec.msgpack.decode(signed["body"])
    assert grant["what"] == sha256(command["payload"])
    assert grant["where"] == command["to"]
    payload = msgspec.msgpack.decode(command["payload"])
    return {"grant": grant, "to": command["to"], **payload}


def run_module(module: str, files: Mapping[str, bytes], folder: Path) -> tuple[int, str]:
    """Run a module of a repository's files here, without AngelOS: exit code and output."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-B", "-m", module],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
