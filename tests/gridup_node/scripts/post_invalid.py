"""Post what is no call, as fast as the node takes it, until standard input ends; how often which status came.

Arguments: the port, and who the caller is said to be.
"""

import http.client
import json
import sys
import threading
from collections import Counter

port, caller = int(sys.argv[1]), sys.argv[2]
BODIES = (
    ("/api/v2/api_call", b"\x00" * 64),
    ("/api/v2/api_call", b"no message of Cap'n Proto's" * 100),
    ("/api/v2/login", b"{"),
    ("/api/v2/login", b'{"email": [1], "password": {}}'),
    ("/api/v2/register", b"\xff\xfe"),
    ("/login", b"email=%ff&password"),
)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
statuses = Counter()
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
while not ended.is_set():
    for path, body in BODIES:
        try:
            connection.request("POST", path, body, {"X-Forwarded-For": caller})
            answer = connection.getresponse()
            answer.read()
            statuses[str(answer.status)] += 1
        except (OSError, http.client.HTTPException):
            # The proxy may close what is not HTTP's own any more; the next goes by another connection.
            connection.close()
            statuses["closed"] += 1
print(json.dumps(statuses))
