"""The tables. Importing this package registers all of them with `Base.metadata`."""

from server.db.models.api_key import ApiKey
from server.db.models.archive import ArchiveRow, RestoredConversation
from server.db.models.audit import AuditEntry
from server.db.models.base import Base
from server.db.models.calibration import CalibrationRow
from server.db.models.cloud import (
    CloudConsent,
    CloudPolicy,
    CloudProvider,
    CloudSpend,
    CloudVersion,
    Egress,
    EgressHead,
)
from server.db.models.conformance import ConformanceRow
from server.db.models.conversation import Conversation, MemberAnswer, Message
from server.db.models.council import ContentionRow, CouncilRow, CouncilRun, SkillRow
from server.db.models.engine import EngineRow
from server.db.models.hardware import HardwareDevice, HardwareSample
from server.db.models.login_session import LoginSession
from server.db.models.price import PriceRow
from server.db.models.quota import Quota
from server.db.models.retention import HardwareHour, UsageDay
from server.db.models.setup_token import SetupToken
from server.db.models.upkeep import Departure, UpkeepRun
from server.db.models.usage import Usage
from server.db.models.user import User

__all__ = [
    "ApiKey",
    "ArchiveRow",
    "AuditEntry",
    "Base",
    "CalibrationRow",
    "CloudConsent",
    "CloudPolicy",
    "CloudProvider",
    "CloudSpend",
    "CloudVersion",
    "ConformanceRow",
    "ContentionRow",
    "Conversation",
    "CouncilRow",
    "CouncilRun",
    "Departure",
    "Egress",
    "EgressHead",
    "EngineRow",
    "HardwareDevice",
    "HardwareHour",
    "HardwareSample",
    "LoginSession",
    "MemberAnswer",
    "Message",
    "PriceRow",
    "Quota",
    "RestoredConversation",
    "SetupToken",
    "SkillRow",
    "UpkeepRun",
    "Usage",
    "UsageDay",
    "User",
]
