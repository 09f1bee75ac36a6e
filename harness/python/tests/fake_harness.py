"""A harness for tests: the socket of docs/protocol.md, and what a test wants it to answer, lose or break."""

import json
import os
import select
import socket
import tempfile
import threading


def parse(datagram):
    return dict(line.split("=", 1) for line in datagram.decode().split("\n") if "=" in line)


class FakeHarness:
    """Answers ASK with the state and NEXT from `workloads`; keeps every message, without those sent twice."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "socket")
        self.messages = []
        self.workloads = []
        self.state = {"STATE": 0, "SAVE": 0, "STOP": 0, "REASON": "unknown"}
        self.askers = set()
        self.lose_answers = 0
        self.listen()

    def listen(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.wake, self.woken = os.pipe()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.lock = threading.Lock()
        self.thread.start()

    def serve(self):
        while True:
            ready, _, _ = select.select([self.socket, self.wake], [], [])
            if self.wake in ready:
                return
            datagram, sender = self.socket.recvfrom(65536)
            message = parse(datagram)
            with self.lock:
                if "ASK" in message:
                    self.askers.add(sender)
                    self.push_to(sender)
                if "NEXT" in message:
                    self.answer_next(message, sender)
                self.messages.append(message)

    def answer_next(self, message, sender):
        if self.lose_answers > 0:
            self.lose_answers -= 1
            return
        kind, steps = self.workloads[0]
        steps = f"\nSTEPS={steps}" if steps else ""
        self.send(f"WORKLOAD={kind}{steps}\nSEQ={message['SEQ']}", sender)

    def send(self, text, sender):
        try:
            self.socket.sendto(text.encode() if isinstance(text, str) else text, sender)
        except OSError:
            pass  # the program has gone

    def push_to(self, sender):
        self.send("\n".join(f"{key}={value}" for key, value in self.state.items()), sender)

    def push(self, **changes):
        with self.lock:
            self.state = {**self.state, "STATE": self.state["STATE"] + 1, **changes}
            for sender in self.askers:
                self.push_to(sender)

    def push_raw(self, text):
        with self.lock:
            for sender in self.askers:
                self.send(text, sender)

    def close(self):
        os.write(self.woken, b"x")
        self.thread.join()
        for descriptor in (self.wake, self.woken):
            os.close(descriptor)
        self.socket.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def said(self, key):
        """Every value that came with that key."""
        with self.lock:
            return [message[key] for message in self.messages if key in message]

    def reports(self):
        with self.lock:
            return [(int(m["STEP"]), json.loads(m["METRICS"])) for m in self.messages if "METRICS" in m]


def scratch():
    return tempfile.TemporaryDirectory(prefix="nemo-")
