"""Find out, before Ray itself is asked, whether a Ray cluster answers at an address: in one line and in seconds.

Ray would try for half a minute, and its libraries write logs of their own to the terminal meanwhile; some versions end
the process. So the greeting of HTTP/2 is tried first, and then Ray's own in a process that may be given up.
"""

import os
import select
import socket
import subprocess
import sys

from core.config.options import whole_number
from core.errors import UserError

TIMEOUT = 10.0  # seconds to wait for an address to answer, in all
IMPORT_TIMEOUT = 60.0  # seconds that Ray may take to be imported, on a busy machine
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # RFC 9113, with empty settings
# Asks for the id of the cluster, as `ray.init` does first. Another version of Ray, without that name, says nothing.
_GREETING = """
import sys
try:
    from ray._raylet import GcsClient
except ImportError:
    sys.exit(0)
print("ready", flush=True)
try:
    GcsClient(address=sys.argv[1])
except Exception as error:
    print(*(str(error).strip().splitlines() or [type(error).__name__])[:1], flush=True)
    sys.exit(1)
"""


def check_address(address: str) -> None:
    """Refuse an address that is none, or at which no Ray cluster answers within ten seconds.

    Raises
    ------
    UserError
        Saying what is wrong with it.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
        if address in ("auto", "local"):
            return
    host, _, port = address.rpartition(":")
    form = "say local, auto or HOST:PORT (the port of `ray start --head`, often 6379)"
    if not host or "/" in host or not 0 < (whole_number(port) or 0) < 65536:
        raise UserError(f"--ray {address}: {form}")
    try:
        speaks_http2 = _speaks_http2(host.strip("[]"), int(port))
    except UnicodeError:  # it cannot be asked for, as a name of 64 letters without a dot
        raise UserError(f"--ray {address}: no machine can have that name; {form}") from None
    except OSError as error:
        reason = f"no answer in {TIMEOUT:g} s" if isinstance(error, TimeoutError) else error.strerror or error
        raise UserError(f"--ray {address}: {reason}; is a head node running there (`ray start --head`)?") from None
    if not speaks_http2:
        raise _another(address, "what answers there is not a Ray cluster")
    if reason := _refused(address):
        raise _another(address, reason)


def _speaks_http2(host: str, port: int) -> bool:
    """Tell whether a server answers the opening of a connection with its settings, as gRPC's do, which Ray speaks."""
    with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
        connection.settimeout(TIMEOUT)
        connection.sendall(_PREFACE)
        answer = connection.recv(9)
    return len(answer) >= 4 and answer[3] == 4  # the type of a settings frame


def _refused(address: str) -> str:
    """Greet a cluster as Ray does, in a process of its own; return why it is none, "" where it may be one."""
    with subprocess.Popen(
        [sys.executable, "-c", _GREETING, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # what is read of it is one line, and no more
        start_new_session=True,  # Ctrl-C is for this process to answer
    ) as greeting:
        assert greeting.stdout is not None
        try:
            if not select.select([greeting.stdout], [], [], IMPORT_TIMEOUT)[0] or not greeting.stdout.readline():
                return ""
            said = greeting.communicate(timeout=TIMEOUT)[0].decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            return f"what answers there did not greet as a Ray cluster in {TIMEOUT:g} s"
        finally:
            greeting.kill()
    if greeting.returncode == 0:
        return ""
    return f"what answers there is not a Ray cluster ({said or 'it ended the greeting'})"


def _another(address: str, reason: str) -> UserError:
    return UserError(f"--ray {address}: {reason}; give the port of `ray start --head`")
