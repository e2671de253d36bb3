"""What a session may reach besides the model and its repository."""

from enum import StrEnum


class Network(StrEnum):
    """How much of the network a session has."""

    NONE = "none"
    TRUSTED = "trusted"
    CUSTOM = "custom"


# Where packages come from, each by its own name: a `*` would let others' data out as well. The indexes that
# are configured on this machine come first.
TRUSTED = (
    *("{npm}", "{pip}", "pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "registry.yarnpkg.com"),
    *(
        "crates.io",
        "static.crates.io",
        "index.crates.io",
        "proxy.golang.org",
        "sum.golang.org",
        "rubygems.org",
    ),
    *(
        "index.rubygems.org",
        "repo.maven.apache.org",
        "repo1.maven.org",
        "plugins.gradle.org",
        "services.gradle.org",
    ),
    *("api.nuget.org", "packagist.org", "repo.packagist.org", "hex.pm", "repo.hex.pm"),
    *(
        "deb.debian.org",
        "security.debian.org",
        "archive.ubuntu.com",
        "security.ubuntu.com",
        "dl-cdn.alpinelinux.org",
    ),
)
