"""Paths that are told outside the console: loading this loads nothing else."""

SIGN_IN = "/console/sign-in"
LINK = f"{SIGN_IN}/link"
PASSKEY = f"{SIGN_IN}/passkey"
ORGANIZATION = f"{SIGN_IN}/organization"
BACK = f"{ORGANIZATION}/back"
ACCOUNT = "/console/account"
# What browsers take for this machine, by themselves (RFC 6761, 6.3).
OWN_NAME = "bailee.localhost"
