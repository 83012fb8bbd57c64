"""A main server: who has logged in there may connect to the farm. Run it with

python -m hypercorn --bind 127.0.0.1:8000 main_server:app
farm start --set auth.url=http://127.0.0.1:8000/auth
"""

import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

SESSIONS = {"8f2c": "ann"}  # yours are in a database, or in a signed cookie


async def auth(request: Request) -> Response:
    user = SESSIONS.get(request.cookies.get("session", ""))
    if user is None:
        return PlainTextResponse("log in first\n", 403)
    return JSONResponse({"user": user, "expires": 3600})


app = Starlette(routes=[Route("/auth", auth, methods=["GET", "POST"])])

if __name__ == "__main__":
    print("usage: python -m hypercorn --bind 127.0.0.1:8000 main_server:app", file=sys.stderr)
    sys.exit(2)
