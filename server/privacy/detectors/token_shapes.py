"""The shapes of tokens that begin with a known mark, and of secrets that stand in a known frame.

A vendor marks its tokens so that scanners find them: the mark and a plausible rest are enough, whatever the exact
length is this year. So lengths here are lower bounds. Sources: the vendors' pages on their tokens, and for marks
without such a page the rules of gitleaks (v8, config/gitleaks.toml, MIT), of which only the facts are taken, no
expression.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A type of secret.

    Attributes:
        type: its name in findings.
        marks: one of these, in lower case, must be in the text; the expression is only tried then.
        pattern: matches it; the group `secret`, where there is one, is what must not leave.
    """

    type: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]


# Before (<B>) and after (<E>) a token there is nothing that could belong to it.
_BEFORE = r"(?<![A-Za-z0-9])"
_AFTER = r"(?![A-Za-z0-9])"


def _shape(type_: str, marks: str, pattern: str) -> Shape:
    return Shape(type_, tuple(marks.split()), re.compile(pattern.replace("<B>", _BEFORE).replace("<E>", _AFTER)))


SHAPES = (
    _shape("ANTHROPIC_KEY", "sk-ant-", "<B>sk-ant-[A-Za-z0-9_-]{20,200}"),
    _shape(
        "OPENAI_KEY",
        "sk-",
        "<B>sk-(?:(?:proj|svcacct|admin|None|or-v1)-[A-Za-z0-9_-]{20,250}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{32,100})",
    ),
    _shape("HUGGING_FACE_TOKEN", "hf_ api_org_", "<B>(?:hf|api_org)_[A-Za-z0-9]{30,60}<E>"),
    _shape(
        "GITHUB_TOKEN",
        "github_pat_ ghp_ gho_ ghu_ ghs_ ghr_",
        "<B>(?:github_pat|gh[pousr])_[A-Za-z0-9_]{30,255}",
    ),
    _shape(
        "GITLAB_TOKEN",
        "gl gr1348941",
        "<B>(?:gl(?:pat|dt|ft|soat|rt|rtr|ptt|agent|imt|cbt|ffct)-|GR1348941)[A-Za-z0-9_.-]{20,100}",
    ),
    _shape(
        "GOOGLE_KEY",
        "aiza gocspx- ya29.",
        r"<B>(?:AIza[A-Za-z0-9_-]{35}<E>|GOCSPX-[A-Za-z0-9_-]{20,40}|ya29\.[A-Za-z0-9_-]{20,400})",
    ),
    _shape("AWS_KEY", "akia asia abia acca", "<B>(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}<E>"),
    _shape(
        "AWS_KEY",
        "secret",
        r"(?i:secret[_ ]?(?:access[_ ]?)?key)[\"']?\s{0,3}(?:=>|[:=])?\s{0,3}[\"']?(?P<secret>[A-Za-z0-9/+]"
        "{40})(?![A-Za-z0-9/+])",
    ),
    _shape(
        "AZURE_KEY",
        "accountkey= sharedaccesskey= sig=",
        "(?:AccountKey|SharedAccessKey)=(?P<secret>[A-Za-z0-9+/]{40,90}={0,2})|[?&]sig=(?P<secret_>"
        "[A-Za-z0-9%+/=]{40,120})",
    ),
    _shape("TELEGRAM_TOKEN", ":", "(?<![0-9])[0-9]{8,10}:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _shape("NPM_TOKEN", "npm_ _authtoken", r"<B>npm_[A-Za-z0-9]{30,60}<E>|:_authToken=(?P<secret>\S{8,200})"),
    _shape("PYPI_TOKEN", "pypi-", "<B>pypi-[A-Za-z0-9_-]{50,300}"),
    _shape(
        "SLACK_TOKEN",
        "xox xapp- hooks.slack.com",
        r"<B>(?:xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,250}|xapp-[0-9]-[A-Za-z0-9-]{10,250})"
        r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/+]{20,100}",
    ),
    _shape(
        "STRIPE_KEY",
        "k_live_ k_test_ whsec_",
        "<B>(?:[srp]k_(?:live|test)_[A-Za-z0-9]{16,150}|whsec_[A-Za-z0-9+/=]{24,80})",
    ),
    _shape(
        "DISCORD_TOKEN",
        ". discord",
        r"(?<![A-Za-z0-9_-])[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}(?!"
        r"[A-Za-z0-9_-])|discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{40,90}",
    ),
    _shape("SENDGRID_KEY", "sg.", r"<B>SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}"),
    _shape("TWILIO_KEY", "ac sk", "<B>(?:AC|SK)[0-9a-f]{32}<E>"),
    _shape("DATABRICKS_TOKEN", "dapi", "<B>dapi[0-9a-f]{32}(?:-[0-9])?<E>"),
    _shape("DIGITALOCEAN_TOKEN", "_v1_", "<B>do[opr]_v1_[0-9a-f]{64}<E>"),
    _shape("SHOPIFY_TOKEN", "shp", "<B>shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}<E>"),
    _shape("VAULT_TOKEN", "hvs. hvb. s.", r"<B>hv[sbr]\.[A-Za-z0-9_-]{20,300}"),
    _shape("DOCKER_TOKEN", "dckr_", "<B>dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,60}"),
    _shape("SUPABASE_KEY", "sbp_ sb_secret_", "<B>(?:sbp_[0-9a-f]{40}|sb_secret_[A-Za-z0-9_-]{20,60})"),
    _shape("WIRTHFORGE_KEY", "wf-", "(?<![A-Za-z0-9_-])wf-[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"),
    _shape(
        "API_KEY",
        "gsk_ xai- r8_ pplx- nvapi- fw_ lin_api_ ntn_ glsa_ glc_ tskey- sntry nrak- pmak- atlasv1 dp. "
        "rubygems_ doppler sq0 eaaa key- figd_ phx_ re_ age-secret-key- ops_ csk- tvly- jina_ pul- cio "
        "nfp_",
        "<B>(?:gsk_[A-Za-z0-9]{40,70}|xai-[A-Za-z0-9]{60,100}|r8_[A-Za-z0-9]{30,50}"
        "|pplx-[A-Za-z0-9]{40,70}|nvapi-[A-Za-z0-9_-]{40,100}|fw_[A-Za-z0-9]{22,50}"
        "|lin_api_[A-Za-z0-9]{32,60}|ntn_[A-Za-z0-9]{40,60}|glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}"
        "|glc_[A-Za-z0-9+/]{32,400}|tskey-[a-z]{2,10}-[A-Za-z0-9-]{20,80}|sntry[su]_[A-Za-z0-9+/=_-]"
        r"{40,300}|NRAK-[A-Z0-9]{27}|PMAK-[0-9a-f-]{50,70}|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,80}"
        r"|dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9._-]{40,80}|rubygems_[0-9a-f]{48}|sq0(?:atp"
        "|csp|idp)-[A-Za-z0-9_-]{22,50}|EAAA[A-Za-z0-9_-]{60}|key-[0-9a-f]{32}|figd_[A-Za-z0-9_-]{40,60}"
        "|ph[xc]_[A-Za-z0-9]{40,60}|re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,30}|AGE-SECRET-KEY-1[0-9A-Z]{58}"
        "|ops_eyJ[A-Za-z0-9+/=_-]{50,900}|csk-[a-z0-9]{40,60}|tvly-[A-Za-z0-9-]{30,60}"
        "|jina_[A-Za-z0-9_-]{50,80}|pul-[0-9a-f]{40}|nfp_[A-Za-z0-9]{36,50})",
    ),
    _shape("JWT", "eyj", r"<B>eyJ[A-Za-z0-9_-]{10,1500}\.eyJ[A-Za-z0-9_-]{10,3000}(?:\.[A-Za-z0-9_-]{0,900})?"),
    _shape(
        "PRIVATE_KEY",
        "private key putty-user-key",
        "-{2,5} ?BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)? ?-{2,5}|PuTTY-User-Key-File-[23]",
    ),
    _shape(
        "CONNECTION_URL",
        "://",
        r"<B>[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/?#@\"'<>\[\]]{0,100}:(?P<secret>[^\s@/\"'<>]{1,200})@"
        r"[^\s\"'<>]{1,300}",
    ),
    _shape(
        "PASSWORD",
        "authorization",
        r"(?i)authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:bearer|basic|token|digest)\s{1,3}(?P<secret>"
        "[A-Za-z0-9._~+/=-]{8,2000})",
    ),
    _shape(
        "PASSWORD",
        "bearer",
        r"(?i)(?<![a-z])bearer\s{1,3}(?P<secret>(?=[a-z._~+/=-]{0,60}[0-9])[A-Za-z0-9._~+/=-]{20,2000})",
    ),
    _shape(
        "PASSWORD",
        "curl wget http",
        r"(?<!\S)(?:-u|--user)[ =][\"']?(?P<secret>[^\s:\"']{1,80}:[^\s\"']{3,120})",
    ),
    _shape(
        "PASSWORD_HASH",
        "$",
        r"(?<![A-Za-z0-9$])\$(?:2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}|(?:[156y]|apr1"
        r"|gy)\$[./A-Za-z0-9=,$]{20,200}|argon2(?:id|i|d)\$[A-Za-z0-9+/=,$]{30,250}"
        r"|scrypt\$[A-Za-z0-9+/=,$]{30,250})",
    ),
    _shape("OTP_SECRET", "otpauth://", r"otpauth://[^\s\"'<>]{10,400}"),
    _shape(
        "PRIVATE_KEY",
        "privatekey presharedkey",
        r"(?:PrivateKey|PresharedKey)\s{0,3}=\s{0,3}(?P<secret>[A-Za-z0-9+/]{43}=)",
    ),
)

# Names of fields and variables whose value is a secret.
NAMED_WITH = (
    "(?:pass(?:word|wd|phrase|wort|code)|passwort|kennwort|pwd|passw|secret|geheimnis"
    "|credentials?|zugangsdaten|contrase(?:ñ|n)a|mot[_ -]?de[_ -]?passe|api[_ -]?(?:key"
    "|token|secret|schlüssel)|(?:auth|access|refresh|bearer|session|id|bot|deploy"
    "|service|personal|csrf|oauth)[_ -]?(?:token|key|secret)|(?:client|consumer|app"
    "|webhook|signing|shared|jwt|secret|private|priv|encryption|encrypt|master|account"
    "|storage|db|database|license|licence|ssh|root|admin|aes|hmac)[_ -]?(?:secret"
    "|key|pass|pw|token)|connection[_ -]?string)"
)
