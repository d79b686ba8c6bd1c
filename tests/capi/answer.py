# SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
#
# answer.py NETNS ADDRESS: answers every DNS query with its question alone, and when it is told to end, says how many.

import ctypes
import os
import signal
import socket
import sys

CLONE_NEWNET = 0x40000000

namespace, address = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
with open(namespace) as file:
    if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)

queries = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
queries.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
queries.bind((address, 53))
answered = 0


def end(*_):
    print("answered", answered)
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
print("ready")
while True:
    query, client = queries.recvfrom(2048)
    # A response, recursion available, NOERROR.
    queries.sendto(query[:2] + b"\x81\x80" + query[4:], client)
    answered += 1
