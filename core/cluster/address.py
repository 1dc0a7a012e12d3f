"""Check that a Ray cluster answers at an address, before Ray itself joins it.

Without this check `ray.init` (Ray 2.60) tries for two minutes, prints logs of its C++ libraries, and ends the process.
"""

import os
import socket
import subprocess
import sys

from core.config.options import parse_whole_number
from core.errors import UserError

CONNECT_TIMEOUT = 10.0  # seconds
CLUSTER_TIMEOUT = 30.0  # seconds for importing Ray on a busy machine and for one request
# Asks for the id of the cluster, as `ray.init` does first. A version of Ray without this class reports nothing.
_REQUEST = """
import sys
try:
    from ray._raylet import GcsClient
except ImportError:
    sys.exit(0)
GcsClient(address=sys.argv[1])
"""


def check_address(address: str) -> None:
    """Check that a Ray cluster answers at an address.

    Parameters
    ----------
    address
        ``auto`` or ``HOST:PORT``.

    Raises
    ------
    UserError
        For an invalid address, and if no Ray cluster answers there.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
        if address in ("auto", "local"):
            return
    host, _, port = address.rpartition(":")
    form = "give local, auto or HOST:PORT (the port of `ray start --head`, often 6379)"
    if not host or "/" in host or not 0 < (parse_whole_number(port) or 0) < 65536:
        raise UserError(f"--ray {address}: {form}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()
    except UnicodeError:
        raise UserError(f"--ray {address}: invalid host name; {form}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--ray {address}: {reason}; is a head node running there (`ray start --head`)?") from None
    request = [sys.executable, "-c", _REQUEST, address]
    try:
        answered = not subprocess.run(request, capture_output=True, timeout=CLUSTER_TIMEOUT, check=False).returncode
    except subprocess.TimeoutExpired:
        answered = False
    if not answered:
        raise UserError(f"--ray {address}: no Ray cluster answers there; give the port of `ray start --head`")
