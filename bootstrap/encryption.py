"""Secrets are encrypted in etcd: the key, and the API server's file that names it.

etcd's data may rest on a shared file system, and on its backups. The key is a file of its own
beside the other keys, made once and kept for ever: what it has encrypted is lost without it.

Source: Kubernetes' documentation, "Encrypting Confidential Data at Rest";
k8s.io/apiserver/pkg/apis/apiserver/v1, EncryptionConfiguration.
"""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

from hpk.durable import write_atomically

_KEY_BYTES = 32  # of secretbox: XSalsa20 and Poly1305


def ensure(path: Path) -> None:
    """Make the EncryptionConfiguration where there is none; 0600, for it holds the key."""
    if not path.exists():
        write_atomically(path, json.dumps(_configuration(secrets.token_bytes(_KEY_BYTES))) + "\n")


def _configuration(key: bytes) -> dict[str, object]:
    """Secrets are written with the key; those of a store that is older are read as they are."""
    keys = [{"name": "hpk", "secret": base64.b64encode(key).decode()}]
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {
                "resources": ["secrets"],
                "providers": [{"secretbox": {"keys": keys}}, {"identity": {}}],
            }
        ],
    }
