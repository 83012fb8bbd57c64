"""Who waits for the main server, what is asked of it once for many, and what is remembered."""

from typing import Any

import msgspec
import pytest
from support.common import Clock, settings_with

from router.auth.questions import Question, Questions
from router.common import messages as m
from router.common.auth_settings import AuthOptions
from router.common.metrics import RouterCounters

ASKED = m.Authorise("talk", m.CONNECT, "GET", "/a", [(b"cookie", b"secret")], "192.0.2.1", ["a"])
YES, NO, DOWN = m.Verdict(200, ["a"]), m.Verdict(403), m.Verdict(503)


def like(asked: m.Authorise = ASKED, **changes: Any) -> m.Authorise:
    return msgspec.structs.replace(asked, **changes)


class Site:
    """Questions without their shell."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.counters = RouterCounters()
        self.questions = Questions(
            {"talk": "http://one", "other": "http://two"}.get,  # type: ignore[arg-type]
            settings_with((AuthOptions, options)).get(AuthOptions),
            self.counters,
            self.clock.monotonic,
            b"key",
        )
        self.number = 0

    def ask(self, asked: m.Authorise = ASKED, worker: object = None) -> list[m.Verdict | None]:
        """Returns: a list that gets the verdict when there is one."""
        found: list[m.Verdict | None] = []
        self.number += 1
        self.questions.ask(asked, (worker, self.number), lambda status, verdict: found.append(verdict))
        return found

    def take(self) -> Question:
        question = self.questions.take()
        assert question is not None
        return question

    def answered(self, verdict: m.Verdict, asked: m.Authorise = ASKED) -> None:
        """It is asked, and that is the answer."""
        found = self.ask(asked)
        self.questions.answered(self.take(), verdict)
        assert found == [verdict]


def test_a_question_goes_to_the_url_of_its_dialect_and_its_answer_to_who_asked() -> None:
    site = Site()
    found, other = site.ask(), site.ask(like(dialect="other"))
    one, two = site.take(), site.take()
    assert [(one.url, one.asked.dialect), (two.url, two.asked.dialect)] == [
        ("http://one", "talk"),
        ("http://two", "other"),
    ]
    site.questions.answered(two, NO)
    assert (found, other) == ([], [NO])
    site.questions.answered(one, YES)
    assert (found, other) == ([YES], [NO])
    assert (site.counters.auth_asked, site.counters.auth_allowed, site.counters.auth_refused) == (2, 1, 1)


def test_a_dialect_without_a_url_is_an_error() -> None:
    site = Site()
    statuses: list[int] = []
    site.questions.ask(like(dialect="none"), (None, 1), lambda status, verdict: statuses.append(status))
    assert statuses == [m.FAILED]
    assert site.questions.take() is None


def test_the_shell_is_woken() -> None:
    site = Site()
    woken: list[int] = []
    site.questions.wake = lambda: woken.append(1)
    site.ask()
    assert woken == [1]


def test_those_that_ask_the_same_share_a_question() -> None:
    site = Site()
    before, question = site.ask(), site.take()
    after = site.ask()
    assert site.questions.take() is None
    assert site.questions.waiting == 2
    site.questions.answered(question, YES)
    assert before == after == [YES]
    assert site.questions.waiting == 0


@pytest.mark.parametrize(
    "other",
    [
        like(dialect="other"),
        like(method="POST"),
        like(uri="/b"),
        like(headers=[(b"cookie", b"other")]),
        like(headers=[]),
        like(address="192.0.2.2"),
        like(channels=["a", "b"]),
        like(channels=[]),
    ],
)
def test_what_differs_in_anything_is_asked_and_remembered_on_its_own(other: m.Authorise) -> None:
    site = Site()
    site.ask()
    site.ask(other)
    first, second = site.take(), site.take()
    site.questions.answered(first, YES)
    assert site.ask() == [YES]
    assert site.ask(other) == []
    site.questions.answered(second, NO)
    assert site.ask(other) == [NO]
    assert site.ask() == [YES]


def test_answers_are_remembered_for_a_short_time() -> None:
    site = Site(cache=5, cache_refusals=2)
    other = like(uri="/b")
    site.answered(YES)
    site.answered(NO, other)
    site.clock.pass_by(1.9)
    assert (site.ask(), site.ask(other)) == ([YES], [NO])
    assert site.questions.take() is None
    site.clock.pass_by(0.1)
    assert site.ask(other) == []
    site.clock.pass_by(2.9)
    assert site.ask() == [YES]
    site.clock.pass_by(0.1)
    assert site.ask() == []
    assert site.counters.auth_asked == 2
    assert site.counters.auth_remembered == 3


def test_what_was_not_decided_is_not_remembered() -> None:
    site = Site()
    site.answered(DOWN)
    assert site.ask() == []
    assert site.counters.auth_undecided == 1


def test_a_remembered_grant_ends_when_it_would_have_ended() -> None:
    site = Site(cache=5)
    site.answered(m.Verdict(200, expires=60))
    site.clock.pass_by(4)
    assert site.ask() == [m.Verdict(200, expires=56)]
    site.answered(m.Verdict(200, expires=2), like(uri="/b"))
    site.clock.pass_by(2)
    assert site.ask(like(uri="/b")) == []


def test_without_a_cache_each_is_asked() -> None:
    site = Site(cache=0, cache_refusals=0)
    site.answered(YES)
    site.answered(NO)
    assert site.ask() == []


@pytest.mark.parametrize("action", [m.REFRESH, m.PUBLISH])
def test_a_message_and_a_renewal_are_asked_anew(action: str) -> None:
    site = Site()
    asked = like(action=action, message="hi")
    site.answered(YES, asked)
    site.answered(NO, asked)
    first, second = site.ask(asked), site.ask(asked)
    site.questions.answered(site.take(), YES)
    if action == m.PUBLISH:  # two messages that say the same are two
        assert (first, second) == ([YES], [])
        site.questions.answered(site.take(), NO)
        assert second == [NO]
    else:
        assert (first, second) == ([YES], [YES])
    assert site.questions.waiting == 0


def test_so_many_are_under_way_and_the_others_wait() -> None:
    site = Site(max_questions=2)
    found = [site.ask(like(uri=f"/{number}")) for number in range(3)]
    first, _ = site.take(), site.take()
    assert site.questions.take() is None
    site.questions.answered(first, YES)
    assert site.take().asked.uri == "/2"
    assert found == [[YES], [], []]


def test_who_is_one_too_many_is_refused_at_once() -> None:
    site = Site(max_waiting=2, max_questions=1)
    waiting = [site.ask(), site.ask()]
    ((refused,),) = [site.ask()]
    assert refused is not None
    assert (refused.status, refused.undecided, refused.allowed) == (503, True, False)
    site.questions.answered(site.take(), YES)
    assert waiting == [[YES], [YES]]
    assert site.ask(like(uri="/b")) == []


def test_a_request_that_is_withdrawn_gives_its_place_up() -> None:
    site = Site(max_waiting=2, max_questions=1)
    first = site.ask()
    question = site.take()
    second = site.ask(like(uri="/b"))
    held = site.questions._bytes
    for number in (1, 2, 2, 7):
        site.questions.withdraw((None, number))
    assert site.questions.waiting == 0
    assert site.questions._bytes == held / 2
    third = site.ask(like(uri="/c"))
    site.questions.answered(question, YES)
    assert site.take().asked.uri == "/c"
    assert first == second == third == []
    assert site.ask() == [YES]


def test_a_question_is_put_while_one_of_those_that_share_it_waits() -> None:
    site = Site()
    gone, stays = site.ask(), site.ask()
    site.questions.withdraw((None, 1))
    again = site.ask()
    site.questions.answered(site.take(), YES)
    assert site.questions.take() is None
    assert (gone, stays, again) == ([], [YES], [YES])


def test_what_a_worker_that_is_lost_waits_for_keeps_no_place() -> None:
    site = Site(max_waiting=3)
    lost = [site.ask(like(uri=f"/{number}"), "lost") for number in range(2)]
    other = site.ask(worker="other")
    site.questions.lost("lost")
    assert site.questions.waiting == 1
    site.questions.answered(site.take(), YES)
    assert lost == [[], []]
    assert other == [YES]


def test_a_request_that_is_repeated_has_one_place_and_one_answer() -> None:
    site = Site()
    found: list[m.Verdict | None] = []
    for _ in range(2):
        site.questions.ask(like(action=m.PUBLISH), (None, 1), lambda status, verdict: found.append(verdict))
    assert site.questions.waiting == 1
    site.questions.answered(site.take(), YES)
    assert site.questions.take() is None
    assert found == [YES]


def test_what_waits_holds_no_more_bytes_than_it_may() -> None:
    site = Site(max_waiting_bytes=65_536)
    publish = like(action=m.PUBLISH, message="x" * 20_000)
    found = [site.ask(publish) for _ in range(4)]
    assert [len(one) for one in found] == [0, 0, 0, 1]
    for _ in range(3):
        site.questions.answered(site.take(), NO)
    assert site.ask(publish) == []


def test_who_waits_for_too_long_is_told_so_and_is_not_asked_about() -> None:
    site = Site(timeout=5, max_questions=1)
    site.ask(like(uri="/slow"))
    site.take()
    late = site.ask()
    site.clock.pass_by(4.9)
    site.questions.tick()
    assert late == []
    site.clock.pass_by(0.1)
    site.questions.tick()
    assert late == [m.Verdict(504, body=b"the main server did not answer in time")]
    site.ask(like(uri="/c"))
    site.clock.pass_by(5)
    assert site.questions.take() is None
    assert site.questions.waiting == 1
    assert site.counters.auth_asked == 1


def test_the_oldest_answer_is_forgotten_where_there_are_too_many() -> None:
    site = Site(cache_entries=2, cache_refusals=5)
    for uri in ("/a", "/b", "/c"):
        site.answered(YES, like(uri=uri))
    assert [site.ask(like(uri=uri)) for uri in ("/a", "/b", "/c")] == [[], [YES], [YES]]
    large = Site(cache_bytes=65_536, cache_refusals=5)
    bodies = [m.Verdict(403, body=b"x" * 30_000 + uri) for uri in (b"a", b"b", b"c")]
    for number, verdict in enumerate(bodies):
        large.answered(verdict, like(uri=f"/{number}"))
    assert [large.ask(like(uri=f"/{number}")) for number in range(3)] == [[], [bodies[1]], [bodies[2]]]


def test_nothing_is_left_and_no_secret_is_kept() -> None:
    site = Site()
    site.answered(YES)
    kept = repr({name: value for name, value in vars(site.questions).items() if name != "_secret"})
    assert "secret" not in kept
    site.clock.pass_by(5)
    site.questions.tick()
    assert site.questions._remembered == site.questions._open == site.questions._askers == {}
    assert site.questions._remembered_bytes == site.questions._bytes == 0
