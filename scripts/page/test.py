"""The page of the admin port in a real Chromium. scripts/test-page.sh runs it in a network namespace."""

import os
import re
import sys
import time

from daemon import Daemon, address, connect, get, service, without_endpoints
from looks import check, check_console, check_contrast, check_names, check_width
from server import Server
from webdriver import Browser, Failure, wait_until

URL = "http://127.0.0.1:10249/"
MANY = 10_000
ROWS = "return document.querySelectorAll('#rows [role=row]').length"
NAMES = "return [...document.querySelectorAll('#rows .name')].map((name) => name.textContent)"
DOWN, ENTER, ESCAPE = "\ue015", "\ue007", "\ue00c"


def shop():
    """Returns Services of each kind, and two that are not served as they ask."""
    objects = [
        *service(1, "cart", type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]),
        *service(2, "web", sessionAffinity="ClientIP"),
        without_endpoints(3, "empty"),
        without_endpoints(4, "broken", externalIPs=["not-an-address"]),
        *service(1, "twin"),
    ]
    return objects


def open_page(browser, url=URL, rows=1):
    browser.open(url)
    wait_until("the Services are shown", lambda: browser.run(ROWS) >= rows)


def choose(browser, search):
    """Replaces the text of the search."""
    browser.run("const input = document.getElementById('search'); input.value = ''; input.focus();")
    if search:
        browser.type("#search", search)
    else:
        browser.run("document.getElementById('search').dispatchEvent(new Event('input'))")


def it_is_rendered(browser, daemon):
    open_page(browser, rows=4)
    check(browser.run("return document.title") == "node-1 – kube-dnat", browser.run("return document.title"))
    check(browser.text("#health") == "Healthy", browser.text("#health"))
    names = browser.run(NAMES)
    check(names == [f"shop/{name}:http" for name in ["broken", "cart", "empty", "web"]], names)
    unserved = browser.text("#unserved")
    for text in ["Service shop/broken", '"not-an-address" is not an IP address', "in use by the older Service shop/cart"]:
        check(text in unserved, f"{text}: {unserved}")
    row = browser.run("return document.querySelector('#rows [aria-rowindex=\"3\"]').innerText")
    for text in ["shop/cart", f"{address(1)}:80/TCP", "NodePort 30080"]:
        check(text in row, f"{text}: {row}")
    check("no endpoints" in browser.text("#rows"), browser.text("#rows"))
    check("full" in browser.text("#syncs-list"), browser.text("#syncs-list"))
    check(daemon.directory.name in browser.text("#source"), browser.text("#source"))
    check_names(browser)
    for scheme in ["light", "dark"]:
        browser.emulate(scheme)
        check_contrast(browser, scheme == "dark")
    browser.emulate("light")


def it_refreshes_itself(browser, daemon):
    open_page(browser, rows=4)
    rate = "return document.querySelector('#rows [aria-rowindex=\"3\"] .spark polyline').getAttribute('points')"
    def connected():
        connect(address(1), 5)
        return browser.run(rate)
    wait_until("the rate of shop/cart is plotted", connected)
    wait_until("all connections are counted", lambda: "New connections/s" in browser.text("#tiles"))
    wait_until("age and memory are shown", lambda: re.search(r"\d MB of memory, running for \d", browser.text("#node")))
    daemon.apply("second.yaml", service(9, "new"))
    wait_until("a new Service is shown", lambda: "shop/new:http" in browser.run(NAMES))
    wait_until("its sync is shown", lambda: "partial" in browser.text("#syncs-list"))
    daemon.apply("second.yaml", [])
    wait_until("it is gone", lambda: "shop/new:http" not in browser.run(NAMES))


def it_is_searched_with_the_keyboard(browser, daemon):
    open_page(browser, rows=4)
    browser.keys("/")
    browser.keys(*"30080")
    wait_until("one Service is found", lambda: browser.run(NAMES) == ["shop/cart:http"])
    check(browser.text("#services-count") == "1 of 4", browser.text("#services-count"))
    browser.keys(DOWN, ENTER)
    wait_until("its endpoints are shown", lambda: "10.244.0.2:8080" in browser.text("#details"))
    details = browser.text("#details")
    for text in ["10.245.0.2:8080", "this node", "ready", "Share", "kube-dnat explain shop/cart:http", "30080/TCP"]:
        check(text in details, f"{text}: {details}")
    check_contrast(browser, False)
    browser.keys(ESCAPE)
    wait_until("the details are closed", lambda: browser.run("return !document.getElementById('details').open"))
    check(browser.run("return document.activeElement.textContent") == "shop/cart:http", "the focus is not back")
    choose(browser, "nothing has this name")
    wait_until("none is found", lambda: browser.text("#empty") == "No Service matches.")
    choose(browser, "")
    browser.run("const show = document.getElementById('show'); show.value = 'refused'; show.dispatchEvent(new Event('change'))")
    wait_until("Services without endpoints are found", lambda: browser.run(NAMES) == ["shop/broken:http", "shop/empty:http"])


def its_policy_is_strict(browser, daemon):
    status, headers, _ = get("/")
    policy = headers["content-security-policy"]
    check(status == 200 and "unsafe" not in policy and "*" not in policy, policy)
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"]:
        check(part in policy, policy)
    check((headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer"), headers)
    open_page(browser)
    refused = browser.run("try { document.body.innerHTML = '<b>x</b>'; return ''; } catch (error) { return error.name; }")
    check(refused == "TypeError", f"markup from text is possible: {refused}")
    check([of["source"] for of in browser.console()] != [], "the violation is not reported")
    for path in ["/", "/debug/overview", "/debug/services", "/debug/state", "/configz"]:
        check(get(path, host="rebound.example:10249")[0] == 403, path)
        for host in ["localhost:8080", "127.0.0.1:10249", "[::1]:10249", "192.168.7.2", "node-1:10249"]:
            check(get(path, host=host)[0] == 200, f"{path} at {host}")
    check(get("/debug/flags/v", host="rebound.example", method="PUT", body="4")[0] == 403, "PUT")
    check(get("/metrics", host="prometheus.example")[0] == 200, "/metrics")
    check(get("/", method="POST", body="x")[0] == 405, "POST /")


def it_stays_usable_while_the_daemon_is_stopped(browser, daemon):
    open_page(browser, rows=4)
    daemon.stop()
    try:
        wait_until("the page says so", lambda: "does not answer" in browser.text("#banner"))
        check(browser.text("#health") == "Not answering", browser.text("#health"))
        check(browser.text("#age").startswith("updated "), browser.text("#age"))
        choose(browser, "cart")
        check(browser.run(NAMES) == ["shop/cart:http"], browser.run(NAMES))
        browser.click("#rows .name")
        wait_until("the details say so", lambda: "Retry" in browser.text("#details"))
        check_contrast(browser, False)
    finally:
        daemon.resume()
    browser.run("document.querySelector('#endpoints button').click()")
    wait_until("the details are there", lambda: "10.244.0.2:8080" in browser.text("#details"))
    wait_until("the page recovers", lambda: browser.text("#health") == "Healthy" and browser.text("#banner") == "")


def it_fits_a_phone(browser, daemon):
    browser.emulate("dark", 390, 844)
    open_page(browser, rows=4)
    check_width(browser)
    check_contrast(browser, True)
    browser.run("document.getElementById('services').scrollIntoView()")
    browser.click("#rows [aria-rowindex='3'] .name")
    wait_until("the endpoints are shown", lambda: "10.244.0.2:8080" in browser.text("#details"))
    check_width(browser)
    wide = "const of = document.getElementById('details'); return of.scrollWidth <= of.clientWidth && of.clientWidth <= innerWidth"
    check(browser.run(wide), "the details are wider than the phone")
    browser.click("#details-close")
    browser.emulate("light")


HOSTILE = ["<script>hacked = 1</script>", "<img src=x onerror='hacked = 1'>", "__proto__", "constructor",
           "javascript:hacked = 1", "\u202eevil\u2066", "x" * 5000, "' onclick='hacked = 1", "{{hacked = 1}}"]


def hostile_answers():
    """Returns answers with hostile texts wherever a text may be."""
    family = {"family": "IPv4", "internal": "cluster", "used": 1, "ready": 1, "local": 0, "total": 1}
    ports = [
        {"name": f"{name}:{name}", "protocol": name, "port": 80, "clusterIPs": [name],
         "families": [{**family, "family": name, "internal": name}]}
        for name in HOSTILE
    ]
    endpoint = {"ports": [1], "ready": False, "serving": True, "terminating": False, "local": True}
    status = {"version": HOSTILE[0], "lastSyncSeconds": 1, "pendingChanges": 0, "unreadServices": 0,
              "conntrackCleanupPending": False, "driftRepairs": 0, "failedSyncs": 1,
              "node": {"name": HOSTILE[2], "exists": False}, "takeoverWaitsFor": HOSTILE[0],
              "apiServer": {"url": HOSTILE[4], "followedSeconds": 7000, "servers": HOSTILE},
              "manifests": {"directory": HOSTILE[6], "problems": dict((name, name) for name in HOSTILE)},
              "watches": [{"kind": name, "state": name, "seconds": 1, "lastEventSeconds": None, "objects": 1,
                           "error": name} for name in HOSTILE]}
    syncs = [{"at": time.time(), "full": False, "elapsedMs": 1, "kernelMs": None, "programmingMs": None,
              "operations": 0, "error": name} for name in HOSTILE]
    services = {"busy": False, "ageSeconds": 0, "revision": 1, "ports": ports,
                "problems": dict((name, [name, name]) for name in HOSTILE)}
    return {
        "/debug/overview": {"node": HOSTILE[1], "now": time.time(), "health": "unhealthy", "families": HOSTILE[:2],
                            "countsConnections": True, "status": status, "syncs": syncs},
        "/debug/services": services,
        "/debug/services?service": {"IPv4": [], "IPv6": None,
                                    "endpoints": [{**endpoint, "address": name} for name in HOSTILE]},
        "/debug/connections": {"now": time.time(), "connections": dict((f"{name}:{name}", 1) for name in HOSTILE)},
    }


def hostile_names_stay_text(browser, daemon):
    server = Server(get("/"), hostile_answers())
    try:
        open_page(browser, server.url)
        browser.run("document.getElementById('services').scrollIntoView()")
        wait_until("all Services are in view", lambda: browser.run(ROWS) == len(HOSTILE))
        check(browser.text("#health") == "Not healthy", browser.text("#health"))
        names = browser.run(NAMES)
        for name in HOSTILE:
            check(f"{name}:{name}" in names, f"{name} is not shown: {names}")
        for at in range(len(HOSTILE)):
            browser.run("document.querySelectorAll('#rows .name')[arguments[0]].click()", at)
            wait_until("the endpoints are shown", lambda: browser.text("#endpoints").startswith("Address"))
            browser.run("document.getElementById('details').close()")
        count = "return document.querySelectorAll('script, img, iframe, [onerror], [onclick]').length"
        check(browser.run(count) == 1, "a text has become markup")
        check(browser.run("return typeof hacked") == "undefined", "a text has run")
        check_width(browser)
        browser.emulate("dark", 390, 844)
        check_width(browser)
        browser.emulate("light")
        check_console(browser)
        services = server.answers["/debug/services"]
        server.answers["/debug/services"] = {**services, "busy": True, "ageSeconds": 75}
        wait_until("a busy sync loop is shown", lambda: "busy with a sync. Services are shown as of 1m" in browser.text("#banner"))
        overview = server.answers["/debug/overview"]
        server.answers["/debug/overview"] = {**overview, "countsConnections": False}
        wait_until("it is shown that nothing is counted", lambda: "connection metrics are disabled" in browser.text("#tiles"))
    finally:
        server.close()


def many():
    objects = []
    for number in range(MANY):
        objects += service(number, f"service-{number:05}")
    return objects


def ten_thousand_services_are_fast(browser, daemon):
    started = time.monotonic()
    open_page(browser, rows=4)
    took = time.monotonic() - started
    check(took < 5, f"the page took {took:.1f} s")
    print(f"   {MANY} Services: shown after {took:.2f} s")
    check(browser.text("#services-count") == "10,000", browser.text("#services-count"))
    check(browser.run(ROWS) < 60, f"{browser.run(ROWS)} rows exist")
    search = """
    const input = document.getElementById('search');
    const started = performance.now();
    input.value = arguments[0];
    input.dispatchEvent(new Event('input'));
    document.body.offsetHeight;
    return performance.now() - started;
    """
    took = browser.run(search, "service-0999")
    check(browser.text("#services-count") == "10 of 10,000", browser.text("#services-count"))
    print(f"   a search: {took:.1f} ms")
    check(took < 500, f"a search took {took} ms")
    browser.run(search, "")
    browser.run("scrollTo(0, document.documentElement.scrollHeight)")
    wait_until("the last Service is shown", lambda: "shop/service-09999:http" in browser.run(NAMES))
    check(browser.run(ROWS) < 60, f"{browser.run(ROWS)} rows exist")
    browser.run("scrollTo(0, 0)")
    daemon.apply("second.yaml", service(MANY, "a-new-one"))
    wait_until("a new Service is shown", lambda: "shop/a-new-one:http" in browser.run(NAMES))


SMALL = [it_is_rendered, it_refreshes_itself, it_is_searched_with_the_keyboard, it_fits_a_phone,
         hostile_names_stay_text, its_policy_is_strict, it_stays_usable_while_the_daemon_is_stopped]
LARGE = [ten_thousand_services_are_fast]


def run(browser, program, objects, tests):
    """Runs tests with one daemon; returns the number of those that fail."""
    failed = 0
    daemon = Daemon(program, objects)
    try:
        for test in tests:
            name, started = test.__name__.replace("_", " "), time.monotonic()
            try:
                browser.emulate("light")
                test(browser, daemon)
                check_console(browser)
                print(f"ok {name} ({time.monotonic() - started:.1f} s)", flush=True)
            except Failure as failure:
                failed += 1
                browser.screenshot(os.path.join(os.environ.get("TMPDIR", "/tmp"), f"kube-dnat-page-{test.__name__}.png"))
                print(f"FAILED {name}: {failure}", flush=True)
    finally:
        browser.open("about:blank")
        daemon.close()
    return failed


def main():
    program = sys.argv[1]
    browser = Browser()
    try:
        failed = run(browser, program, shop(), SMALL) + run(browser, program, many(), LARGE)
    finally:
        browser.close()
    sys.exit(1 if failed else 0)


main()
