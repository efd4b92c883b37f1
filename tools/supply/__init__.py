"""What the server is made of: a list of it (SBOM), its licences, and what is known to be wrong with it.

    python -m tools.supply sbom         writes build/sbom.cdx.json
    python -m tools.supply licences     refuses licences that do not fit
    python -m tools.supply audit        asks for known vulnerabilities

All three read the two locks alone (requirements/*.lock and client/package-lock.json), which name every package with its
version and hashes, and nothing of the machine they run on. See docs/supply-chain.md.
"""
