"""Some words and named arrays, over a socket between two processes of the service.

A frame is two lengths of 4 bytes, an object of JSON, and the arrays as safetensors write them:
nothing that is read can be executed.
"""

import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson
from safetensors.numpy import load, save

Arrays = dict[str, np.ndarray]

_HEAD: Final = struct.Struct("<II")


def send(to: socket.socket, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a frame.

    Raises:
        OSError: If nobody reads, or not within the timeout of the socket.
    """
    text = orjson.dumps(words)
    numbers = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    to.sendall(b"".join((_HEAD.pack(len(text), len(numbers)), text, numbers)))


def receive(of: socket.socket) -> tuple[dict[str, Any], Arrays]:
    """Read a frame.

    Raises:
        EOFError: If the other end was closed.
        OSError: If nothing comes within the timeout of the socket.
    """
    text, numbers = _HEAD.unpack(_exactly(of, _HEAD.size))
    rest = _exactly(of, text + numbers)
    arrays = load(bytes(rest[text:]))
    return orjson.loads(rest[:text]), {name: array.copy() for name, array in arrays.items()}


def _exactly(of: socket.socket, size: int) -> memoryview:
    found = memoryview(bytearray(size))
    start = 0
    while start < size:
        count = of.recv_into(found[start:])
        if not count:
            raise EOFError("The other process has ended.")
        start += count
    return found
