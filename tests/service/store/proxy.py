"""Something between a client and a server that delays, hangs or cuts, on demand."""

import contextlib
import socket
import threading
import time


class Proxy:
    """Passes bytes between its own port and a server's.

    `mode` is `pass`; `hang`: nothing goes through; `refuse`: connections are cut, old and new.
    `cut_at` are bytes of the client at which the connection is cut once: `before` they reach the
    server, or `after` the server has answered them. `delay` is in seconds, of each piece that came
    at once, either way; it goes on in slices of `slice_bytes`, each sent alone.
    """

    def __init__(self, port):
        self.server_port, self.mode = port, "pass"
        self.cut_at, self.when, self.num_cuts = None, "before", 0
        self.delay, self.slice_bytes = 0.0, None
        self._moved = threading.Condition()
        self._pairs, self._threads = [], []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def set(self, mode):
        with self._moved:
            self.mode = mode
            self._moved.notify_all()
        if mode == "refuse":
            self._cut_all()

    def close(self):
        self.set("refuse")
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port))
            except OSError:
                client.close()
                continue
            pair = (client, server)
            self._pairs.append(pair)
            for one in pair:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            cut = threading.Event()
            self._start(self._pump, pair, client, server, cut)
            self._start(self._pump, pair, server, client, cut)

    def _pump(self, pair, source, sink, cut):
        is_of_client = source is pair[0]
        try:
            while data := source.recv(65_536):
                with self._moved:
                    self._moved.wait_for(lambda: self.mode != "hang")
                if cut.is_set():  # the server has answered what the client shall not hear of
                    break
                if is_of_client and self.cut_at is not None and self.cut_at in data:
                    self.cut_at, self.num_cuts = None, self.num_cuts + 1
                    if self.when == "before":
                        break
                    cut.set()
                if self.delay:
                    time.sleep(self.delay)
                size = self.slice_bytes or len(data)
                for start in range(0, len(data), size):
                    sink.sendall(data[start : start + size])
        except OSError:
            pass
        for one in pair:
            _shut(one)

    def _cut_all(self):
        for pair in self._pairs:
            for one in pair:
                _shut(one)


def _shut(one):
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
