"""The data-usage page as data: one TOML file per agent, strictly read, and what is drawn from it."""

from bailee.manifests.loading import Manifest, SettingsFile, agents, load_manifest, read_manifest

__all__ = ["Manifest", "SettingsFile", "agents", "load_manifest", "read_manifest"]
