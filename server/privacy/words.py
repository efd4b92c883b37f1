"""What was found, in plain words, so that a person can be told why something stays on the box."""

from server.privacy.findings import Kind

# What each type is called. Types of an own plugin that are not here are told by their kind.
TYPES: dict[str, tuple[Kind, str]] = {
    # Personal data.
    "PERSON": ("personal", "a person's name"),
    "EMAIL": ("personal", "an e-mail address"),
    "PHONE": ("personal", "a phone number"),
    "ADDRESS": ("personal", "a postal address"),
    "PLACE": ("personal", "a place"),
    "ORGANISATION": ("personal", "an organisation"),
    "BIRTH_DATE": ("personal", "a date of birth"),
    "AGE": ("personal", "somebody's age"),
    "CREDIT_CARD": ("personal", "a payment card number"),
    "IBAN": ("personal", "a bank account number (IBAN)"),
    "BANK_ACCOUNT": ("personal", "a bank account number"),
    "TAX_ID": ("personal", "a tax number"),
    "ID_CARD": ("personal", "the number of an identity card or passport"),
    "SOCIAL_SECURITY": ("personal", "a social security number"),
    "DRIVING_LICENCE": ("personal", "the number of a driving licence"),
    "HEALTH_INSURANCE": ("personal", "a health insurance number"),
    "LICENCE_PLATE": ("personal", "a licence plate"),
    "HEALTH": ("personal", "something about somebody's health"),
    "IP_ADDRESS": ("personal", "an IP address"),
    "MAC_ADDRESS": ("personal", "a network card's address"),
    "URL": ("personal", "a web address"),
    "USER_NAME": ("personal", "a user name"),
    "WALLET": ("personal", "a cryptocurrency address"),
    "PERSONAL": ("personal", "personal data"),
    # Secrets.
    "PRIVATE_KEY": ("secret", "a private key"),
    "PASSWORD": ("secret", "a password"),
    "SECRET": ("secret", "something that looks like a secret"),
    "PASSWORD_HASH": ("secret", "the hash of a password"),
    "OTP_SECRET": ("secret", "the secret of one-time passwords"),
    "API_KEY": ("secret", "a key of a service"),
    "ANTHROPIC_KEY": ("secret", "a key of Anthropic's API"),
    "OPENAI_KEY": ("secret", "a key of OpenAI's API"),
    "HUGGING_FACE_TOKEN": ("secret", "a Hugging Face token"),
    "GITHUB_TOKEN": ("secret", "a GitHub token"),
    "GITLAB_TOKEN": ("secret", "a GitLab token"),
    "GOOGLE_KEY": ("secret", "a Google key"),
    "AWS_KEY": ("secret", "a key of Amazon's cloud"),
    "AZURE_KEY": ("secret", "a key of Microsoft's cloud"),
    "TELEGRAM_TOKEN": ("secret", "a Telegram bot's token"),
    "NPM_TOKEN": ("secret", "an npm token"),
    "PYPI_TOKEN": ("secret", "a PyPI token"),
    "SLACK_TOKEN": ("secret", "a Slack token"),
    "STRIPE_KEY": ("secret", "a Stripe key"),
    "DISCORD_TOKEN": ("secret", "a Discord token"),
    "SENDGRID_KEY": ("secret", "a SendGrid key"),
    "TWILIO_KEY": ("secret", "a Twilio key"),
    "DATABRICKS_TOKEN": ("secret", "a Databricks token"),
    "DIGITALOCEAN_TOKEN": ("secret", "a DigitalOcean token"),
    "SHOPIFY_TOKEN": ("secret", "a Shopify token"),
    "VAULT_TOKEN": ("secret", "a Vault token"),
    "DOCKER_TOKEN": ("secret", "a Docker token"),
    "SUPABASE_KEY": ("secret", "a Supabase key"),
    "WIRTHFORGE_KEY": ("secret", "a key of this box"),
    "JWT": ("secret", "a signed token (JWT)"),
    "CONNECTION_URL": ("secret", "an address with a password in it"),
    # Code and files.
    "CODE": ("code", "program code"),
    "ATTACHMENT": ("file", "an attachment"),
    "FILE_NAME": ("file", "a file name"),
}

_KINDS: dict[Kind, str] = {
    "secret": "a secret",
    "personal": "personal data",
    "code": "program code",
    "file": "a file",
}


def words_for(type_: str, kind: Kind | None = None) -> str:
    """What `type_` is, as it fits into a sentence: "an e-mail address"."""
    known = TYPES.get(type_)
    if known is not None:
        return known[1]
    return _KINDS[kind] if kind is not None else "something that may not leave"
