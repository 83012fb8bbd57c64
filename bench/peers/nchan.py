"""nchan, a push module of nginx in C."""

import getpass
import os
import re
import resource
from pathlib import Path
from typing import Final

from bench.peers.base import NotInstalledError, Peer, Ports, Storing, Tools, ask, program

MODULE: Final = "ngx_nchan_module.so"
MODULE_FOLDERS: Final = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
SPARE_CONNECTIONS: Final = 1000

_CONFIGURATION: Final = """\
load_module {module};
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
# as many processes as the farm beside it has workers
worker_processes {workers};
worker_rlimit_nofile {descriptors};
events {{
    # nginx makes its table of connections at its start, so that it counts as its memory before the first device
    worker_connections {connections};
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    # app servers keep their connections
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 1024m;
    server {{
        listen 127.0.0.1:{port} backlog=4096{reuseport};
        location ~ ^/sub/(\\d+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id $1;
            # what was pushed before a device came is none of this load
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/push/(\\d+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            # nothing is kept once it was sent: its fastest way
            nchan_store_messages off;
        }}
        location ~ ^/stored/(\\d+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id s$1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/store/(\\d+)$ {{
            nchan_publisher;
            nchan_channel_id s$1;
            nchan_store_messages on;
            nchan_message_buffer_length {stored};
            nchan_message_timeout 1h;
        }}
    }}
}}
"""


class Nchan(Peer):
    """One port for both sides; compression is off by default."""

    name = "nchan"
    title = "nchan (nginx)"
    hint = "apt-get install libnginx-mod-nchan"
    processes = "nginx master, {workers}"
    set_up = "upgrade, subscribe"
    push = "POST; 201 once it was given to the subscriber's process"
    many = True
    one_port = True
    wire = "post"
    fans_out = True

    def find(self, tools: Tools) -> str:
        _module()
        about = ask([program("nginx"), "-V"], "nginx does not run")
        # nchan has nginx make its folders where it was built to have them, whatever the configuration says.
        built = re.search(r"--http-client-body-temp-path=(/\S+)", about)
        if built is not None and not (folder := Path(built[1]).parent).is_dir():
            raise NotInstalledError(f"nginx has no folder {folder}: mkdir -p {folder}")
        return f"of nginx {about.partition('/')[2].split()[0]}"

    def command(self, tools: Tools, ports: Ports, folder: Path) -> list[str]:
        text = _CONFIGURATION.format(
            module=_module(),
            # a worker of root would be another user, who can't enter the folder
            user=f"user {getpass.getuser()};" if os.geteuid() == 0 else "",
            folder=folder,
            workers=tools.workers,
            descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            # nginx closes idle ones of app servers once less than a sixteenth of the table is free
            connections=tools.devices * 8 // 7 + SPARE_CONNECTIONS,
            port=ports.device,
            stored=tools.stored,
            # with one worker there is no one to share the port with
            reuseport=" reuseport" if tools.workers > 1 else "",
        )
        path = folder / "nginx.conf"
        path.write_text(text)
        return [program("nginx"), "-p", str(folder), "-e", str(folder / "log"), "-c", str(path)]

    def storing(self) -> Storing:
        return Storing(
            "event stream", "eventsource", {"path": "/stored/{channel}", "chunked": False}, "/store/{channel}"
        )


def _module() -> str:
    own = Path(program("nginx")).resolve().parent.parent / "lib/nginx/modules"
    for folder in (own, *MODULE_FOLDERS):
        path = Path(folder, MODULE)
        if path.exists():
            return str(path)
    raise NotInstalledError(f"no {MODULE} in {', '.join(MODULE_FOLDERS)}")
