"""The hosts that the endpoint can play: one row each.

To add one, add a row: what each member means, `Host` says. What does not fit a row is a small function in the module of
the host's family, and a test for it over a real socket.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from . import app_service, entra, entra_users, imds, service_fabric
from .keyring import Keyring
from .protocol import Host

if TYPE_CHECKING:
    from collections.abc import Iterable

_APP_SERVICE = Host(
    name="app_service",
    path="/msi/token",
    version="2019-08-01",
    variables={"IDENTITY_ENDPOINT": "{url}/msi/token", "IDENTITY_HEADER": "{secret}"},
    selectors={
        "client_id": "client_id",
        "principal_id": "object_id",
        "object_id": "object_id",
        "mi_res_id": "resource_id",
    },
    door=app_service.secret_door("x-identity-header", 403),
    body=app_service.body,
    refusal=app_service.refusal,
)
_APP_SERVICE_2017 = Host(
    name="app_service_2017",
    path="/msi/token",
    version="2017-09-01",
    variables={"MSI_ENDPOINT": "{url}/msi/token", "MSI_SECRET": "{secret}"},
    selectors={"clientid": "client_id"},
    door=app_service.secret_door("secret", 401),
    body=app_service.body,
    refusal=app_service.refusal,
)
_AZURE_ML = Host(
    name="azure_ml",
    path="/msi/auth",
    version="2017-09-01",
    variables={"MSI_ENDPOINT": "{url}/msi/auth", "MSI_SECRET": "{secret}"},
    selectors={"clientid": "client_id"},
    door=app_service.secret_door("secret", 401),
    body=app_service.azure_ml_body,
    refusal=app_service.azure_ml_refusal,
)
_IMDS = Host(
    name="imds",
    path="/metadata/identity/oauth2/token",
    variables={"AZURE_POD_IDENTITY_AUTHORITY_HOST": "{url}"},
    selectors={"client_id": "client_id", "object_id": "object_id", "msi_res_id": "resource_id"},
    door=imds.door,
    body=imds.body,
    refusal=imds.refusal,
    headers={"Server": "IMDS/150.870.65.1853"},
)
_AZURE_ARC = Host(
    name="azure_arc",
    path="/metadata/identity/oauth2/token",
    version="2020-06-01",
    variables={"IDENTITY_ENDPOINT": "{url}/metadata/identity/oauth2/token", "IMDS_ENDPOINT": "{url}"},
    selectors={"client_id": "client_id", "object_id": "object_id", "msi_res_id": "resource_id"},
    prepare=Keyring.make_key_folder,
    door=imds.azure_arc_door,
    body=imds.body,
    refusal=imds.refusal,
)
_CLOUD_SHELL = Host(
    name="cloud_shell",
    path="/oauth2/token",
    variables={"MSI_ENDPOINT": "{url}/oauth2/token"},
    method="POST",
    door=imds.cloud_shell_door,
    body=imds.cloud_shell_body,
    refusal=imds.cloud_shell_refusal,
)
_SERVICE_FABRIC = Host(
    name="service_fabric",
    path="/metadata/identity/oauth2/token",
    variables={
        "IDENTITY_ENDPOINT": "{tls_url}/metadata/identity/oauth2/token",
        "IDENTITY_HEADER": "{secret}",
        "IDENTITY_SERVER_THUMBPRINT": "{thumbprint}",
    },
    tls=True,
    door=service_fabric.door,
    body=service_fabric.body,
    refusal=service_fabric.refusal,
)
_ENTRA = Host(
    name="entra",
    path="/*/oauth2/v2.0/token",
    variables={
        "AZURE_AUTHORITY_HOST": "{tls_url}/",
        "AZURE_TENANT_ID": "{tenant_id}",
        "AZURE_CLIENT_ID": "{client_id}",
        "AZURE_FEDERATED_TOKEN_FILE": "{federated_token_file}",
        "SSL_CERT_FILE": "{authorities_file}",
    },
    method="POST",
    tls=True,
    prepare=Keyring.rotate_federated_token,
    pages={"/common/userrealm/*": entra_users.user_realm},
    door=entra.door,
    question=entra.question,
    body=entra.body,
    refusal=entra.refusal,
    headers={"Cache-Control": "no-store"},
)
_TABLE = (
    _APP_SERVICE,
    _APP_SERVICE_2017,
    _AZURE_ML,
    _IMDS,
    _AZURE_ARC,
    _CLOUD_SHELL,
    _SERVICE_FABRIC,
    _ENTRA,
)


def chosen(names: Iterable[str], *, date_text: bool, arc_ignores_selectors: bool, has_root: bool) -> tuple[Host, ...]:
    """Return the rows called *names*, in the manner of the options, which `IdentityEndpoint` explains.

    Raises ValueError for a name that is not in the table, for none at all, and for one that needs a root without one.
    """
    known = {row.name: row for row in _TABLE}
    if isinstance(names, str):
        raise ValueError(f"hosts must be a list such as [{names!r}], not {names!r}")  # noqa: TRY004  (as for the others)
    rows = []
    for name in names:
        if name not in known:
            raise ValueError(f"unknown host {name!r}; known are {', '.join(known)}")
        if known[name].prepare is not None and not has_root:
            raise ValueError(f"root must be a folder to play {name!r}, which has files, not None")
        rows.append(known[name])
    if not rows:
        raise ValueError(f"hosts must not be empty; known are {', '.join(known)}")
    if date_text:
        rows = [replace(row, body=app_service.date_text_body) if row is _APP_SERVICE_2017 else row for row in rows]
    if arc_ignores_selectors:
        rows = [replace(row, selectors={}) if row is _AZURE_ARC else row for row in rows]
    return tuple(rows)
