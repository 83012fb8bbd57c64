"""Send a push to a browser, encrypted and signed. Needs: pip install pywebpush
Usage: python webpush_send.py TEXT < subscription.json

The subscription is what the web page has got, JSON.stringify(await registration.pushManager.subscribe({
userVisibleOnly: true, applicationServerKey: KEY})), and has given to your app server. This program prints that KEY.
`farm demo` is such a page, and docs/dialects/webpush.md says how Firefox is pointed at a farm."""

import base64
import json
import os
import sys

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid, VapidException
from pywebpush import WebPushException, webpush

if len(sys.argv) != 2:
    print("usage: python webpush_send.py TEXT < subscription.json", file=sys.stderr)
    sys.exit(2)

# Your app server's own key pair, by which the farm knows it: made at the first start; keep it, and keep it secret.
os.umask(0o077)  # other users cannot read it
vapid = Vapid.from_file("vapid_private_key.pem")
point = vapid.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
print("applicationServerKey:", base64.urlsafe_b64encode(point).rstrip(b"=").decode())

try:
    subscription = json.load(sys.stdin)
    answer = webpush(
        subscription_info={"endpoint": subscription["endpoint"], "keys": subscription["keys"]},
        data=sys.argv[1],
        vapid_private_key=vapid,
        vapid_claims={"sub": "mailto:you@example.org"},
        ttl=3600,  # how long it waits for a browser that is not running, in seconds
        headers={"Urgency": "normal"},
        timeout=30,
    )
except (WebPushException, OSError) as error:
    # 404 and 410: forget this subscription. 429, 503 and no answer: again later, after Retry-After.
    sys.exit(str(error))
except (ValueError, TypeError, KeyError, VapidException) as error:
    sys.exit(f"that is no subscription: {error}")
print(answer.status_code)  # 201: the farm keeps it until the browser has it
