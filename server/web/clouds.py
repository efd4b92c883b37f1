"""Everything about clouds that is asked over HTTP: for the composition root (server/app.py)."""

from typing import Any

from server.web.cloud import CloudPolicies, CloudPolicyAdmin
from server.web.cloud_consents import CloudConsents
from server.web.cloud_providers import CloudProviderAdmin
from server.web.egress import EGRESS_ROUTES

CLOUD_ROUTES: tuple[Any, ...] = (CloudPolicies, CloudPolicyAdmin, CloudConsents, CloudProviderAdmin, *EGRESS_ROUTES)
