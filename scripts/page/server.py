"""A server with the page of the daemon and any JSON."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEADERS = ["content-type", "content-security-policy", "x-content-type-options", "referrer-policy",
           "cross-origin-opener-policy", "cross-origin-resource-policy"]


class Server:
    """Serves the page at `/`, and answers, by path, as JSON."""

    def __init__(self, page, answers):
        _, headers, content = page
        self.answers = answers
        server = self

        class Handler(BaseHTTPRequestHandler):
            """Answers one request."""

            def do_GET(self):
                path, _, query = self.path.partition("?")
                if path == "/":
                    self.answer({name: headers[name] for name in HEADERS}, content)
                    return
                of = server.answers[path + ("?service" if query.startswith("service=") else "")]
                self.answer({"content-type": "application/json"}, json.dumps(of).encode())

            def answer(self, headers, content):
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Logs nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
