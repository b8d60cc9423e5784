"""``clusterTrustBundle``: certificates of authorities that the cluster trusts, as one file.

Source: k8s.io/apimachinery, pkg/apis/meta/v1/helpers.go (LabelSelectorAsSelector).
"""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.plan import TrustBundleSource
from hpk.planning.base.fields import (
    INVALID,
    JsonObject,
    check_text,
    get_object,
    get_objects,
    get_relative_path,
    get_text,
    get_texts,
)

_WORDS = {"In": "{key} in ({values})", "NotIn": "{key} notin ({values})"}
_BARE = {"Exists": "{key}", "DoesNotExist": "!{key}"}


def plan_source(source: JsonObject, path: str) -> TrustBundleSource:
    """One source of a projected volume."""
    name = get_text(source, "name", path)
    signer_name = get_text(source, "signerName", path)
    if bool(name) == bool(signer_name):
        raise AdmissionError(INVALID, path, "must have either a name or a signerName")
    return TrustBundleSource(
        path=get_relative_path(source, "path", path),
        name=name,
        signer_name=signer_name,
        label_selector=_selector(source, path),
        optional=source.get("optional") is True,
    )


def _selector(source: JsonObject, path: str) -> str | None:
    if source.get("labelSelector") is None:
        return None
    selector = get_object(source, "labelSelector", path)
    path = f"{path}.labelSelector"
    labels = get_object(selector, "matchLabels", path)
    wanted = [
        f"{key}={check_text(value, f'{path}.matchLabels[{key}]')}"
        for key, value in sorted(labels.items())
    ]
    for where, expression in get_objects(selector, "matchExpressions", path):
        key, operator = get_text(expression, "key", where), get_text(expression, "operator", where)
        if operator not in (*_WORDS, *_BARE):
            raise AdmissionError(INVALID, f"{where}.operator", f"{operator!r} is no operator")
        values = ",".join(sorted(get_texts(expression, "values", where)))
        wanted.append((_WORDS | _BARE)[operator].format(key=key, values=values))
    return ",".join(wanted)
