"""kube-dnat with a directory of manifests, in the network namespace of the test."""

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile

from webdriver import Failure, wait_until

PORT = 10249
NODE = "node-1"


def address(number):
    """Returns the ClusterIP of a Service."""
    return f"10.96.{number // 250}.{number % 250 + 1}"


def service(number, name, **spec):
    """Returns a Service with a port and two endpoints, one of them on this node."""
    of = {"clusterIPs": [address(number)], "ports": [{"name": "http", "port": 80}]}
    slices = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": [f"10.244.{number // 250}.{number % 250 + 1}"], "nodeName": NODE},
            {"addresses": [f"10.245.{number // 250}.{number % 250 + 1}"], "nodeName": "node-2"},
        ],
    }
    return [without_endpoints(number, name, **{**of, **spec}), slices]


def without_endpoints(number, name, **spec):
    """Returns a Service without endpoints."""
    of = {"clusterIPs": [address(number)], "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
            "spec": {**of, **spec}}


class Daemon:
    """A running kube-dnat."""

    def __init__(self, program, objects):
        self.directory = tempfile.TemporaryDirectory(prefix="kube-dnat-page.")
        self.apply("first.yaml", objects)
        self.log = tempfile.TemporaryFile()
        command = [program, "run", "--manifests", self.directory.name, "--hostname-override", NODE,
                   "--cluster-cidr", "10.244.0.0/15"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_until("kube-dnat is ready", self._is_ready)

    def apply(self, file, objects):
        """Writes objects to a file of the directory, in one step."""
        path = os.path.join(self.directory.name, file)
        with open(path + ".new", "w", encoding="utf-8") as into:
            into.write("\n---\n".join(json.dumps(of) for of in objects))
        os.rename(path + ".new", path)

    def _is_ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise Failure(f"kube-dnat exited with {self.process.returncode}: {self.log.read().decode()}")
        try:
            return get("/healthz")[0] == 200
        except ConnectionError:
            return False

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.resume()
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


def get(path, host=f"127.0.0.1:{PORT}", method="GET", body=None):
    """Sends a request with this header Host; returns the status, the headers and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request(method, path, body, {"Host": host})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, dict((name.lower(), value) for name, value in response.getheaders()), content


def connect(to, times):
    """Opens connections, which need not be answered."""
    for _ in range(times):
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex((to, 80))
