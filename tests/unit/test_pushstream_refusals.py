"""Push stream, device side: how requests are refused before anything is asked, and what is not in such an answer."""

import pytest
from support.pushstream_shard import Answer, site

from router.common import messages as m


@pytest.mark.parametrize("path", ["/sub/a", "/ev/a"])
def test_an_answer_that_refuses_has_no_header_and_no_footer(path: str) -> None:
    with site(header_template="HEADER", footer_template="FOOTER") as here:
        client = here.plain(path)
        here.answer(full=m.Subscribe)
        answer = client.rest()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"\r\n\r\n0\r\n\r\n")
        assert b"FOOTER" not in answer
        assert b"HEADER" not in answer
