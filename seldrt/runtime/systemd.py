"""What systemd wants to know of a service of ``Type=notify``: lines to the socket that it names (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


class ServiceManager:
    """Tells the service manager that started this process; nothing happens when there is none."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def tell(self, *assignments: str) -> None:
        """Sends assignments such as ``READY=1`` as one datagram; never waits."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto("\n".join(assignments).encode(), socket.MSG_DONTWAIT, self._address)
