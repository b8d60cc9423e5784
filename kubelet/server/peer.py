"""Who is at the other end of a connection: the client certificate's subject."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

AUTHENTICATED_GROUP = "system:authenticated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An authenticated client.

    :param user: the certificate's common name.
    :param groups: its organizations, and ``system:authenticated``, as upstream's authenticators
        give them.
    """

    user: str
    groups: tuple[str, ...]


def peer_of(ssl_object: ssl.SSLObject) -> Peer | None:
    """The client of a connection whose certificate TLS has verified; None if it names nobody."""
    certificate = ssl_object.getpeercert()
    if not certificate:
        return None
    user = ""
    groups: list[str] = []
    # getpeercert: "subject" is a tuple of RDNs, each a tuple of (name, value).
    subject: tuple[tuple[tuple[str, str], ...], ...] = certificate.get("subject", ())  # type: ignore[assignment]
    for rdn in subject:
        for name, value in rdn:
            if name == "commonName":
                user = value
            elif name == "organizationName":
                groups.append(value)
    if not user:
        return None
    return Peer(user=user, groups=(*groups, AUTHENTICATED_GROUP))
