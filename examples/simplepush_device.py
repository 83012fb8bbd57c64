"""A SimplePush device. Needs: pip install websocket-client. Usage: python simplepush_device.py ws://localhost:8080/
It prints its endpoint, for which `curl -X PUT -d version=1 ENDPOINT` is a push, and then a line for each update."""

import json
import random
import sys
import time
import uuid

import websocket

uaid = ""  # who this device is; a real one keeps it, and its channels, on disk
channels = [str(uuid.uuid4())]  # one for each thing that there is news of

while True:
    try:
        farm = websocket.create_connection(sys.argv[1], subprotocols=["push-notification"], timeout=None)
        farm.send(json.dumps({"messageType": "hello", "uaid": uaid, "channelIDs": channels if uaid else []}))
        while text := farm.recv():
            message = json.loads(text)
            if message["messageType"] == "hello":
                if message["uaid"] != uaid:  # the farm does not know us, so the channels have to be registered
                    for channel in channels:
                        farm.send(json.dumps({"messageType": "register", "channelID": channel}))
                uaid = message["uaid"]
            elif message["messageType"] == "register":
                print(message["pushEndpoint"], flush=True)  # give it to your app server
            elif message["messageType"] == "notification":
                for update in message["updates"]:
                    print(update["channelID"], update["version"], flush=True)
                farm.send(json.dumps({"messageType": "ack", "updates": message["updates"]}))  # until then it is kept
    except (OSError, websocket.WebSocketException) as error:
        print(error, file=sys.stderr)
    time.sleep(1 + 9 * random.random())  # after a restart of the farm not all devices in the same second
