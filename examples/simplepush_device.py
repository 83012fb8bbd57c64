"""A SimplePush device. Needs: pip install websocket-client. Usage: python simplepush_device.py ws://localhost:8080/
It prints its endpoint, for which `curl -X PUT -d version=1 ENDPOINT` is a push, and then a line for each update."""

import json
import random
import sys
import time
import uuid

import websocket

if len(sys.argv) != 2 or not sys.argv[1].startswith(("ws://", "wss://")):
    print("usage: python simplepush_device.py ws://localhost:8080/", file=sys.stderr)
    sys.exit(2)

uaid = ""  # who this device is; a real one keeps it, and its channels, on disk
channels = [str(uuid.uuid4())]  # one for each thing that there is news of
wait = 10  # seconds at most until it comes back

while True:
    try:
        farm = websocket.create_connection(sys.argv[1], subprotocols=["push-notification"], timeout=30)
        # The farm pings whoever is silent for half an hour (worker.keepalive): an hour of nothing is a dead connection.
        farm.settimeout(3600)
        farm.send(json.dumps({"messageType": "hello", "uaid": uaid, "channelIDs": channels if uaid else []}))
        while text := farm.recv():
            message = json.loads(text)
            kind = message.get("messageType")
            if message.get("status", 200) != 200:
                print(text, file=sys.stderr)
            elif kind == "hello":
                wait = 10
                if message["uaid"] != uaid:  # the farm does not know us, so the channels have to be registered
                    for channel in channels:
                        farm.send(json.dumps({"messageType": "register", "channelID": channel}))
                uaid = message["uaid"]
            elif kind == "register":
                print(message["pushEndpoint"], flush=True)  # give it to your app server
            elif kind == "notification":
                for update in message["updates"]:
                    print(update["channelID"], update["version"], flush=True)
                farm.send(json.dumps({"messageType": "ack", "updates": message["updates"]}))  # until then it is kept
    except (OSError, websocket.WebSocketException) as error:
        print(error, file=sys.stderr)
    # After a restart of the farm not all devices in the same second, and less and less often while it is away.
    time.sleep(wait * random.random())
    wait = min(2 * wait, 300)
