"""Paths that are told outside the console: loading this loads nothing else."""

SIGN_IN = "/console/sign-in"
LINK = f"{SIGN_IN}/link"
