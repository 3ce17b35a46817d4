"""A WebDriver client (W3C) of chromedriver, with what the test of the page needs."""

import base64
import http.client
import json
import subprocess
import time

PORT = 9515
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
DEADLINE = 30
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--hide-scrollbars", "--force-prefers-reduced-motion",
]


class Failure(Exception):
    """A check that does not hold."""


def wait_until(what, condition, deadline=DEADLINE):
    """Waits until a condition holds, and returns its value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"waited {deadline} seconds until {what}")
        time.sleep(0.05)


class Browser:
    """A Chromium of its own, with an empty profile."""

    def __init__(self, width=1360, height=900):
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={PORT}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.session = None
        wait_until("chromedriver listens", self._is_ready)
        options = {"args": [*ARGUMENTS, f"--window-size={width},{height}"], "binary": "/usr/bin/chromium"}
        capabilities = {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.session = made["sessionId"]
        self._send("POST", f"/session/{self.session}/timeouts", {"pageLoad": 60000, "script": 30000})

    def _is_ready(self):
        if self.driver.poll() is not None:
            raise Failure(f"chromedriver exited with {self.driver.returncode}")
        try:
            return self._send("GET", "/status")["ready"]
        except ConnectionError:
            return False

    def _send(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=90)
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        if isinstance(value, dict) and "error" in value:
            raise Failure(f"{path}: {value['error']}: {value['message']}")
        return value

    def do(self, method, path, body=None):
        """Sends a command of the session."""
        return self._send(method, f"/session/{self.session}/{path}".rstrip("/"), body)

    def open(self, url):
        self.do("POST", "url", {"url": url})

    def run(self, script, *arguments):
        """Runs the body of a function in the page, and returns its value."""
        return self.do("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command, **parameters):
        """Sends a command of the DevTools protocol."""
        return self.do("POST", "goog/cdp/execute", {"cmd": command, "params": parameters})

    def find(self, selector):
        """Returns an element to type into or to click on."""
        return self.do("POST", "element", {"using": "css selector", "value": selector})[ELEMENT]

    def type(self, selector, text):
        self.do("POST", f"element/{self.find(selector)}/value", {"text": text})

    def click(self, selector):
        self.do("POST", f"element/{self.find(selector)}/click", {})

    def keys(self, *keys):
        """Presses keys, one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.do("POST", "actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def text(self, selector):
        """Returns the text of an element as it is rendered."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def console(self):
        """Returns the messages of the console since the last call."""
        return self.do("POST", "se/log", {"type": "browser"})

    def screenshot(self, path):
        data = base64.b64decode(self.do("GET", "screenshot"))
        with open(path, "wb") as file:
            file.write(data)

    def emulate(self, scheme, width=None, height=None):
        """Sets the preferred colours, and the size of a phone."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])
        if width:
            self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                          deviceScaleFactor=1, mobile=True)
        else:
            self.devtools("Emulation.clearDeviceMetricsOverride")

    def close(self):
        try:
            if self.session:
                self.do("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()
