"""Renews the pictures of the page in docs/: light on a desktop, dark on a phone."""

import sys
import time

from daemon import Daemon, address, connect, service, without_endpoints
from webdriver import Browser, wait_until

NAMES = ["cart", "catalog", "checkout", "inventory", "mail", "orders", "payments", "search", "users", "web"]
PLOTTED = "return [...document.querySelectorAll('#rows polyline')].filter((line) => line.points.length >= 20).length"


def objects():
    """Returns the Services of a shop; some are not served as they ask."""
    of = {
        "web": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
        "payments": {"sessionAffinity": "ClientIP"},
        "cart": {"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30123}]},
    }
    made = []
    for number, name in enumerate(NAMES):
        both = service(number, name, **of.get(name, {}))
        if name in ("orders", "search"):
            both[1]["endpoints"][1]["conditions"] = {"ready": False}
        made += both
    made[2 * NAMES.index("web")]["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.10", "ipMode": "VIP"}]}}
    made.append(without_endpoints(20, "reports"))
    made.append(without_endpoints(21, "billing", externalIPs=["203.0.113.300"]))
    made += service(2, "checkout-old")
    return made


def main():
    program, docs = sys.argv[1:]
    daemon = Daemon(program, objects())
    browser = Browser(1280, 1000)
    try:
        browser.emulate("light")
        browser.open("http://127.0.0.1:10249/")
        started = time.monotonic()

        def is_plotted():
            moment = time.monotonic() - started
            for number, _ in enumerate(NAMES):
                wave = 1 + (number * 7 + int(moment) * (number + 3)) % (3 * number + 4)
                connect(address(number), wave)
            daemon.apply("change.yaml", service(40 + int(moment / 4) % 3, "canary"))
            time.sleep(0.2)
            return browser.run(PLOTTED) >= 6

        wait_until("the rates are plotted", is_plotted, 400)
        browser.screenshot(f"{docs}/page-light.png")
        browser.emulate("dark", 390, 1500)
        wait_until("the page is narrow", lambda: browser.run("return innerWidth") == 390)
        browser.screenshot(f"{docs}/page-dark-phone.png")
    finally:
        browser.close()
        daemon.close()


main()
