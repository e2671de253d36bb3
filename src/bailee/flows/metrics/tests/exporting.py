"""`python exporting.py HOME FOLDER KEY COMMAND...`: a service that takes OTLP over gRPC, and a client of it.

To be run where only loopback is. In the command's environment stand its addresses and the key.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from counterparts.services import serving


def main(home: Path, folder: Path, key: str, command: list[str]) -> int:
    """Run the command beside the service, and return its status."""
    with serving(home, folder, "--upstream", "rehearsal", "--otlp-grpc", "0") as service:
        found = re.search(r"gRPC is taken on port (\d+)", service.errors)
        assert found, service.errors
        environment = {
            **os.environ,
            "ANTHROPIC_BASE_URL": service.url,
            "ANTHROPIC_AUTH_TOKEN": key,
            "BAILEE_SERVICE": service.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{found[1]}",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {key}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        return subprocess.run(command, env=environment, check=False, timeout=100).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
