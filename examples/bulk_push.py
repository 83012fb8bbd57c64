"""Push to many devices, 100 in a request. Usage: python bulk_push.py http://localhost:8081 < FILE, with a line for each
push: {"endpoint": "http://localhost:8081/update/...", "version": 7, "data": "hi"}. Prints what became of each: 200
delivered, 202 stored, 503 not taken, so send it again later; anything else was wrong with the push."""

import http.client
import json
import sys

pushes = [line.strip() for line in sys.stdin if line.strip()]
router = http.client.HTTPConnection(sys.argv[1].removeprefix("http://"))
for first in range(0, len(pushes), 100):
    lines = pushes[first : first + 100]
    router.request("POST", "/v1/push", "\n".join(lines).encode())
    answer = router.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        sys.exit(f"{answer.status}: {text}")
    for push, told in zip(lines, text.splitlines(), strict=True):
        print(json.loads(told)["status"], push)
