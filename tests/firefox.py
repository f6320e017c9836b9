"""Debian's Firefox, driven over WebDriver BiDi: the few commands of it that the tests need.

Playwright's own client of this protocol needs commands that the extended-support release does not have.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import websocket

FIREFOX = shutil.which("firefox-esr")
SECONDS = 60
PREFERENCES = {  # nothing but loopback is reached: all else goes to a proxy that does not exist
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.no_proxies_on": "127.0.0.1",
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "focusmanager.testmode": True,  # the window is active without a desktop
    "browser.startup.homepage_override.mstone": "ignore",  # no page of its own takes the focus
    "datareporting.policy.firstRunURL": "",
    "browser.aboutwelcome.enabled": False,
}
KEYS = {"Enter": "\ue006", "Escape": "\ue00c", "Control": "\ue009", "ArrowDown": "\ue015", "ArrowRight": "\ue014"}


@contextmanager
def firefox(profile, width=1280, height=860):
    """A page of a new Firefox. `profile`: a new folder, which is its home too."""
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))
    command = [FIREFOX, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", profile, "about:blank"]
    env = {**os.environ, "HOME": str(profile)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env) as process:
        try:
            said = iter(process.stderr.readline, "")
            address = next(filter(None, (re.search(r"BiDi listening on (ws://\S+)", line) for line in said)))[1]
            threading.Thread(target=lambda: [None for _ in said], daemon=True).start()
            with closing(
                websocket.create_connection(f"{address}/session", timeout=SECONDS, suppress_origin=True)
            ) as one:
                page = FirefoxPage(one)
                page.do("browsingContext.activate", **page.context)  # else keys go nowhere
                page.do("browsingContext.setViewport", viewport={"width": width, "height": height}, **page.context)
                yield page
        finally:
            process.terminate()
            process.wait(SECONDS)


class FirefoxPage:
    """One page. `said`: the errors and warnings of its console."""

    def __init__(self, socket):
        self.socket = socket
        self.numbers, self.said, self.context = itertools.count(1), [], {}
        self.do("session.new", capabilities={})
        self.context = {"context": self.do("browsingContext.create", type="window")["context"]}
        self.do("session.subscribe", events=["log.entryAdded"])

    def do(self, method, **params):
        """Send a command and wait for its result."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "log.entryAdded" and message["params"]["level"] in ("error", "warn"):
                self.said.append(message["params"]["text"])
            if message.get("id") == number:
                assert message["type"] == "success", message
                return message["result"]

    def open(self, address):
        self.do("browsingContext.navigate", url=address, wait="complete", **self.context)

    def back(self):
        self.do("browsingContext.traverseHistory", delta=-1, **self.context)

    def value(self, expression):
        """The value of an expression of JavaScript; None where it raises."""
        known = {"target": self.context, "awaitPromise": False}
        result = self.do("script.evaluate", expression=f"JSON.stringify({expression})", **known)
        return json.loads(result["result"].get("value", "null")) if result["type"] == "success" else None

    def until(self, expression):
        """Wait until an expression is true. It may be asked of several documents: a page reloads."""
        deadline = time.monotonic() + 2 * SECONDS
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)

    def press(self, *keys):
        """Press keys one after the other; `Control+Enter`: at the same time."""
        actions = []
        for key in keys:
            parts = [KEYS.get(part, part) for part in key.split("+")]
            actions += [{"type": "keyDown", "value": part} for part in parts]
            actions += [{"type": "keyUp", "value": part} for part in reversed(parts)]
        source = {"type": "key", "id": "keys", "actions": actions}
        self.do("input.performActions", actions=[source], **self.context)

    def click(self, element):
        """Click the middle of an element, an expression of JavaScript."""
        self.until(element)
        middle = "((box) => [box.x + box.width / 2, box.y + box.height / 2].map(Math.round))"
        x, y = self.value(f"{middle}(({element}).getBoundingClientRect())")
        move = {"type": "pointerMove", "x": x, "y": y}
        clicks = [move, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        source = {"type": "pointer", "id": "mouse", "actions": clicks}
        self.do("input.performActions", actions=[source], **self.context)

    def shot(self, name):
        if folder := os.environ.get("RLM_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            picture = self.do("browsingContext.captureScreenshot", **self.context)["data"]
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(picture))
