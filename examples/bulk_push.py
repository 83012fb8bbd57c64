"""Push to many devices, 100 in a request. Usage: python bulk_push.py http://localhost:8081 < FILE, with a line for each
push: {"endpoint": "http://localhost:8081/update/...", "version": 7, "data": "hi"}. Prints what became of each: 200
delivered, 202 stored, 429 and 503 not taken, so send it again later; anything else was wrong with the push."""

import http.client
import json
import sys
from urllib.parse import urlsplit

CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}

address = urlsplit(sys.argv[1] if len(sys.argv) == 2 else "")
if address.scheme not in CONNECTIONS:
    print("usage: python bulk_push.py http://localhost:8081 < FILE", file=sys.stderr)
    sys.exit(2)

pushes = [line.strip() for line in sys.stdin if line.strip()]
router = CONNECTIONS[address.scheme](address.netloc)
try:
    for first in range(0, len(pushes), 100):
        lines = pushes[first : first + 100]
        router.request("POST", "/v1/push", "\n".join(lines).encode())
        answer = router.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            sys.exit(f"{answer.status}: {text}")
        for push, told in zip(lines, text.splitlines(), strict=True):
            print(json.loads(told)["status"], push)
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer, so send again what has no line here: {error}")
