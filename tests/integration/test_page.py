"""The page as a browser without scripts has it: views, escaping, sessions, forms, rights."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urljoin, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from atemporal.model import AttemptRef
from atemporal.model.dead_letter import LetterState
from atemporal.store import api_tokens, dead_letters, schedules, sessions
from services.api.changes import SCOPES
from services.api.ui import VIEWS, assets
from services.api.ui.page import HEADERS
from services.api.ui.visitor import COOKIE
from tests.api import Api, bearer, serving
from tests.letters import refused
from tests.page import (
    ALL,
    MARKUP,
    ORIGIN,
    Page,
    Seen,
    form_token,
    seed,
    signed_in,
    state_of,
    token,
    wrote,
)

FIRST_VIEW = 100_000


@pytest.fixture(scope="module")
def seen(api: Api) -> Seen:
    return seed(api)


@pytest.fixture(scope="module")
def closed(database_url: str, seen: Seen) -> Iterator[Api]:
    """The same beyond loopback: the API asks for a token."""
    with serving(database_url, callback_url="https://jobs.example.com") as served:
        yield served


@pytest.fixture(scope="module")
def writer(closed: Api) -> str:
    return token(closed, "<b>bond</b>", *ALL)


@pytest.fixture
def browser(closed: Api, writer: str) -> Iterator[httpx.Client]:
    with signed_in(closed, writer) as client:
        yield client


def views(seen: Seen) -> list[str]:
    return [
        *(
            "",
            "jobs",
            "jobs?state=running",
            f"jobs/{seen.scheduled}",
            f"jobs/{seen.running.job_id}",
        ),
        *(f"jobs/{seen.failed.job_id}", "instances", "schedules", "schedules/nightly", "limits"),
        *("cost", "cost?by=label&label=team&days=30", "cost?by=job"),
        *("dead-letters?state=any", f"dead-letters/{seen.letter}", "health", "sign-in"),
    ]


def get(
    http: httpx.Client, path: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> str:
    answer = http.get(f"/ui/{path}" if path else "/ui", headers=headers)
    assert answer.status_code == status, answer.text
    return answer.text


def post(http: httpx.Client, path: str, word: str, **headers: str) -> httpx.Response:
    return http.post(f"/ui/{path}", data={"form_token": word}, headers=headers or ORIGIN)


def test_every_view_is_there_with_its_headers_and_is_light(api: Api, seen: Seen) -> None:
    for path in views(seen):
        answer = api.http.get(f"/ui/{path}".rstrip("/"))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert HEADERS.items() <= {k: answer.headers[k] for k in HEADERS}.items()
        page = Page(answer.text)
        loaded = [
            urljoin(str(answer.url), attrs.get("src") or attrs["href"])
            for tag, attrs in page.elements
            if tag in ("script", "link", "img")
        ]
        whole = sum(len(api.http.get(one).raise_for_status().content) for one in set(loaded))
        assert len(answer.content) + whole < FIRST_VIEW, path
        assert not [
            a for tag, attrs in page.elements for a in attrs if a.startswith(("on", "style"))
        ]
        assert [tag for tag, _ in page.elements].count("h1") == 1
        assert ("lang", "en") in [i for _, attrs in page.elements for i in attrs.items()]


def test_the_navigation_leads_to_every_view_and_says_which_this_is(api: Api) -> None:
    for view in VIEWS:
        current = [
            attrs["href"]
            for tag, attrs in Page(get(api.http, view.NAV.path)).elements
            if tag == "a" and attrs.get("aria-current") == "page"
        ]
        assert [urljoin(f"/ui/{view.NAV.path}", one) for one in current] == [
            f"/ui/{view.NAV.path}"
        ]


def test_markup_that_somebody_wrote_is_text(
    api: Api, closed: Api, seen: Seen, writer: str
) -> None:
    allowed = {"script": 1, "img": 1}
    with signed_in(closed, writer) as browser:
        for http in (api.http, browser):
            for path in views(seen):
                found = Page(get(http, path))
                for tag, most in allowed.items():
                    assert [one for one, _ in found.elements].count(tag) == most, path
                assert "b" not in [tag for tag, _ in found.elements]
        assert "<b>bond</b>" in Page(get(browser, "")).text
    job = Page(get(api.http, f"jobs/{seen.scheduled}")).text
    # As a label, in the command, and as a key.
    assert job.count(MARKUP) >= 3
    log = Page(get(api.http, f"jobs/{seen.running.job_id}")).text
    assert f"it begins\n{MARKUP}\nzwölf \\u202e done\n" in log
    assert MARKUP in Page(get(api.http, f"dead-letters/{seen.letter}")).text
    assert MARKUP in Page(get(api.http, "limits")).text
    missing = Page(get(api.http, "find?id=<script>alert(3)</script>", 404))
    assert "<script>alert(3)</script>" in missing.text


def test_values_of_variables_are_on_no_page(api: Api, seen: Seen) -> None:
    pages = [get(api.http, path) for path in views(seen)]
    assert "PASSWORD=***" in pages[3]
    assert not [page for page in pages if "hunter2" in page]


def test_jobs_are_filtered_and_paged(api: Api, seen: Seen) -> None:
    def listed(query: str) -> list[str]:
        page = Page(get(api.http, f"jobs?{query}"))
        return [a["title"] for tag, a in page.elements if tag == "a" and a.get("class") == "id"]

    ids = {str(seen.scheduled), str(seen.running.job_id), str(seen.failed.job_id)}
    assert ids <= set(listed(""))
    assert listed("state=running") == [str(seen.running.job_id)]
    assert listed("state=running&label=kind%3Dnightly") == [str(seen.running.job_id)]
    assert listed("label=kind%3Dnone") == []
    assert listed("image=reports/Nightly") == [str(seen.scheduled)]
    assert listed("schedule=nightly") == []
    assert "is none; use" in get(api.http, "jobs?state=odd", 422)
    many = [str(api.submitted(labels={"batch": "7"})) for _ in range(60)]
    first = get(api.http, "jobs?label=batch%3D7")
    assert "60 jobs, the newest first" in " ".join(Page(first).text.split())
    (older,) = [a["href"] for tag, a in Page(first).elements if a.get("rel") == "next"]
    second = urlsplit(urljoin("/ui/jobs", older)).query
    assert [*listed("label=batch%3D7"), *listed(second)] == many[::-1]


def test_a_job_is_found_by_a_part_of_its_id(api: Api, seen: Seen) -> None:
    for part in (str(seen.scheduled), str(seen.scheduled)[-12:], f" {str(seen.scheduled)[-8:]} "):
        answer = api.http.get("/ui/find", params={"id": part})
        assert answer.status_code == 303
        assert urljoin("/ui/find", answer.headers["location"]) == f"/ui/jobs/{seen.scheduled}"
    assert "is too short" in get(api.http, "find?id=ab", 404)
    assert "there is no job" in get(api.http, f"jobs/{uuid4()}", 404)
    assert "there is no such page" in get(api.http, "nothing/here", 404)


def test_the_timeline_has_each_phase_as_a_drawing_and_as_a_table(api: Api, seen: Seen) -> None:
    page = Page(get(api.http, f"jobs/{seen.running.job_id}"))
    drawn = [a["aria-label"] for tag, a in page.elements if tag == "svg" and "aria-label" in a]
    assert drawn[0].startswith("Attempt 1: launch 5s, boot 39s, pull 33s, hold 17s, run ")
    assert drawn[0].endswith("so far")
    boxes = [a for tag, a in page.elements if tag == "rect"]
    assert [a["class"].split()[1] for a in boxes] == [
        f"phase-{one}" for one in ("launch", "boot", "pull", "hold", "run")
    ]


def test_a_log_is_followed_by_positions(api: Api, seen: Seen) -> None:
    ref = api.running(claim="c-9")
    path = f"jobs/{ref.job_id}/log?attempt=1"
    wrote(api, ref, b"one\n", start=0)
    first = json.loads(get(api.http, path))
    assert (first["next"], first["ended"]) == (4, False)
    assert api.exit(ref, exit_code=0, log_tail=base64.b64encode(b"one\ntwo\n").decode()).is_success
    second = json.loads(get(api.http, f"{path}&after={first['next']}"))
    assert (second["next"], second["ended"]) == (8, True)
    for wrong in ("x", "0" * 20 + "9" * 30, "9" * 5000):
        assert "is no number" in get(api.http, f"jobs/{ref.job_id}?after={wrong}", 422)


def test_where_the_api_wants_a_token_the_page_asks_for_it(closed: Api, seen: Seen) -> None:
    for path in views(seen)[:-1]:
        page = get(closed.http, path, 401)
        assert "<h1>Sign in</h1>" in page
        assert str(seen.scheduled) not in page.replace(
            f'value="jobs/{seen.scheduled}"', ""
        ).replace(f"jobs%2F{seen.scheduled}", "").replace(f"jobs/{seen.scheduled}", "")
    assert get(closed.http, f"jobs/{seen.running.job_id}/log", 401)
    assert closed.http.get("/ui/static/page.css").status_code == 200


def test_a_token_of_the_api_is_good_for_the_page_too(closed: Api, writer: str) -> None:
    assert "<h1>Jobs</h1>" in get(closed.http, "jobs", headers=bearer(writer))
    get(closed.http, "jobs", 401, bearer("atp_wrong"))


def test_a_foreign_page_gets_nothing_from_a_page_that_is_open_to_this_machine(api: Api) -> None:
    get(api.http, "jobs", 403, {"Origin": "https://evil.example"})
    get(api.http, "jobs", 403, {"Host": "evil.example"})
    get(api.http, "jobs", 403, {"Forwarded": "for=192.0.2.7"})


def test_signing_in_keeps_a_secret_that_is_not_the_token(closed: Api, writer: str) -> None:
    sent = {"token": f" {writer}\n", "next": "jobs?state=running"}
    answer = closed.http.post("/ui/sign-in", data=sent, headers=ORIGIN)
    assert answer.status_code == 303
    assert urljoin("/ui/sign-in", answer.headers["location"]) == "/ui/jobs?state=running"
    cookie = answer.headers["set-cookie"]
    closed.http.cookies.clear()
    assert writer not in cookie
    name, _, rest = cookie.partition("=")
    secret, *attributes = [one.strip() for one in rest.split(";")]
    assert name == COOKIE
    # Without a path it is for what lies beside the form: /ui, or that beneath a proxy's prefix.
    assert {one.lower() for one in attributes} == {
        "httponly",
        "samesite=strict",
        f"max-age={sessions.LIFETIME_S}",
    }
    with closed.database.begin() as tx:
        kept = tx.scalars(text("SELECT row_to_json(sessions)::text FROM sessions")).all()
    assert kept
    assert not [row for row in kept if secret in row or writer in row]


@pytest.mark.parametrize(
    "next_page", ["https://evil.example/", "//evil.example", "../../x", "a\nb"]
)
def test_signing_in_leads_nowhere_else(closed: Api, writer: str, next_page: str) -> None:
    sent = {"token": writer, "next": next_page}
    answer = closed.http.post("/ui/sign-in", data=sent, headers=ORIGIN)
    closed.http.cookies.clear()
    assert urljoin("http://here/ui/sign-in", answer.headers["location"]) == "http://here/ui"


def test_a_cookie_is_for_tls_alone_where_the_browser_speaks_it(closed: Api, writer: str) -> None:
    host = str(closed.http.base_url.netloc, "ascii")
    for origin, secure in ((f"https://{host}", True), (f"http://{host}", False)):
        headers = {"Origin": origin}
        answer = closed.http.post("/ui/sign-in", data={"token": writer}, headers=headers)
        closed.http.cookies.clear()
        assert ("secure" in answer.headers["set-cookie"].lower()) is secure


def test_a_wrong_token_signs_nobody_in(closed: Api) -> None:
    sent = {"token": "atp_wrong", "next": "health"}
    answer = closed.http.post("/ui/sign-in", data=sent, headers=ORIGIN)
    assert answer.status_code == 401
    assert "there is no such API token" in answer.text
    assert 'value="health"' in answer.text
    assert "set-cookie" not in answer.headers
    as_json = {**ORIGIN, "Content-Type": "application/json"}
    no_text = closed.http.post("/ui/sign-in", content=b'{"token": "\\ud800"}', headers=as_json)
    assert no_text.status_code == 401


def test_a_session_ends_by_signing_out_by_time_and_with_its_token(closed: Api) -> None:
    def session(name: str) -> AbstractContextManager[httpx.Client]:
        return signed_in(closed, token(closed, name, "read"))

    with session("out") as browser:
        kept = dict(browser.cookies)
        get(browser, "jobs")
        left = browser.post("/ui/sign-out", headers=ORIGIN)
        assert "Max-Age=0" in left.history[0].headers["set-cookie"]
        browser.cookies.update(kept)
        get(browser, "jobs", 401)
    with session("late") as browser:
        with closed.database.begin() as tx:
            late = "UPDATE sessions SET expires_at = now() WHERE token_name = 'late'"
            tx.execute(text(late))
        get(browser, "jobs", 401)
    with session("revoked") as browser:
        with closed.database.begin() as tx:
            api_tokens.revoke(tx, "revoked")
        get(browser, "jobs", 401)
    with session("next"), closed.database.begin() as tx:
        names = set(tx.scalars(text("SELECT token_name FROM sessions")))
    assert "late" not in names
    assert "next" in names


def test_several_browsers_are_signed_in_until_the_token_is_revoked(closed: Api) -> None:
    secret = token(closed, "everywhere", "read")
    with signed_in(closed, secret) as desk, signed_in(closed, secret) as phone:
        get(desk, "jobs")
        assert phone.post("/ui/sign-out", headers=ORIGIN).history[0].status_code == 303
        get(phone, "jobs", 401)
        get(desk, "jobs")
        with signed_in(closed, secret) as laptop:
            with closed.database.begin() as tx:
                api_tokens.revoke(tx, "everywhere")
            get(desk, "jobs", 401)
            get(laptop, "jobs", 401)


def test_signing_in_again_ends_the_session_that_this_browser_had(closed: Api) -> None:
    secret, other = token(closed, "again", "read"), token(closed, "another", "read")
    with signed_in(closed, secret) as browser, signed_in(closed, secret) as phone:
        first = dict(browser.cookies)
        refused = browser.post("/ui/sign-in", data={"token": "atp_wrong"}, headers=ORIGIN)
        assert refused.status_code == 401
        get(browser, "jobs")
        assert browser.post("/ui/sign-in", data={"token": other}, headers=ORIGIN).is_success
        assert "another" in get(browser, "jobs")
        get(phone, "jobs")
        browser.cookies.clear()
        browser.cookies.update(first)
        get(browser, "jobs", 401)


def test_a_job_is_cancelled_and_retried_by_whose_token_it_is(
    closed: Api, browser: httpx.Client
) -> None:
    job_id = closed.submitted()
    page = get(browser, f"jobs/{job_id}")
    done = post(browser, f"jobs/{job_id}/cancel", form_token(page))
    assert [one.status_code for one in done.history] == [303]
    assert done.url.path == f"/ui/jobs/{job_id}"
    assert "The job is cancelled." in done.text
    assert state_of(closed, job_id) == "cancelled"
    done = post(browser, f"jobs/{job_id}/retry", form_token(done.text))
    assert "scheduled again" in done.text
    assert state_of(closed, job_id) == "scheduled"
    by = {who for what, who in closed.actors(job_id) if what != "job.scheduled"}
    assert by == {"api:<b>bond</b>"}
    again = post(browser, f"jobs/{job_id}/retry", form_token(done.text))
    assert again.status_code == 409
    assert "Back to the page" in again.text
    assert "Sign out" in again.text


def test_what_runs_is_notified_of_its_cancel_like_by_the_api(
    closed: Api, browser: httpx.Client, seen: Seen
) -> None:
    ref: AttemptRef = closed.running(claim="c-3")
    word = form_token(get(browser, f"jobs/{ref.job_id}"))
    assert post(browser, f"jobs/{ref.job_id}/cancel", word).status_code == 200
    assert state_of(closed, ref.job_id) == "cancelled"


def test_dead_letters_are_replayed_and_dropped(closed: Api, browser: httpx.Client) -> None:
    with closed.database.begin() as tx:
        dead_letters.keep(tx, [refused(b"{}"), refused(b"[]")])
        first, second = (one.id for one in dead_letters.listing(tx, limit=2).letters)
    for letter, verb, state in (
        (first, "replay", LetterState.REPLAYING),
        (second, "drop", LetterState.DROPPED),
    ):
        word = form_token(get(browser, f"dead-letters/{letter}"))
        assert post(browser, f"dead-letters/{letter}/{verb}", word).status_code == 200
        with closed.database.begin() as tx:
            found = dead_letters.get(tx, letter)
        assert (found.state, found.decided_by) == (state, "api:<b>bond</b>")


def test_a_schedule_is_paused_and_resumed(closed: Api, browser: httpx.Client) -> None:
    def paused() -> bool:
        with closed.database.begin() as tx:
            return schedules.shown(tx, "nightly").paused_at is not None

    page = get(browser, "schedules/nightly")
    done = post(browser, "schedules/nightly/pause", form_token(page))
    assert "The schedule is paused" in done.text
    assert paused()
    done = post(browser, "schedules/nightly/resume", form_token(done.text))
    assert "fires again" in done.text
    assert not paused()


CHANGES = {
    "jobs/{job}/cancel": ("cancel",),
    "jobs/{job}/retry": ("cancel",),
    "dead-letters/{letter}/replay": ("submit",),
    "dead-letters/{letter}/drop": ("cancel",),
    "schedules/nightly/pause": ("submit", "cancel"),
    "schedules/nightly/resume": ("submit",),
}


def test_every_change_of_the_page_is_known_here(api: Api) -> None:
    assert {path.rpartition("/")[2]: scopes for path, scopes in CHANGES.items()} == dict(SCOPES)


@pytest.mark.parametrize("path", CHANGES)
def test_nothing_is_changed_without_the_right(
    api: Api, closed: Api, seen: Seen, path: str
) -> None:
    job = closed.submitted()
    where = path.format(job=job, letter=seen.letter)
    wanted = CHANGES[path]
    nobody = [api.http, closed.http]
    for http in nobody:
        answer = post(http, where, "")
        assert answer.status_code == 401
        assert "sign in to change something" in answer.text
    lacking = [("read", *(one for one in ALL if one not in wanted and one != "read"))]
    lacking += [("read", one) for one in wanted if len(wanted) > 1]
    for number, scopes in enumerate(lacking):
        name = f"{path.rpartition('/')[2]}-{number}"
        with signed_in(closed, token(closed, name, *scopes)) as browser:
            word = _word(browser)
            answer = post(browser, where, word)
            assert answer.status_code == 403
            assert "does not allow" in answer.text
            page = get(browser, where.rpartition("/")[0])
            assert f'/{path.rpartition("/")[2]}"' not in page
    assert state_of(closed, job) == "scheduled"


def _word(browser: httpx.Client) -> str:
    """The word of a session, which some page has for a change that it allows; else made as it is."""
    secret = browser.cookies[COOKIE]
    return hmac.new(secret.encode(), b"atemporal form", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"X-Nothing": "said"},
    ],
    ids=str,
)
def test_no_other_page_makes_a_browser_change_anything(
    closed: Api, browser: httpx.Client, writer: str, headers: dict[str, str]
) -> None:
    job_id = closed.submitted()
    word = form_token(get(browser, f"jobs/{job_id}"))
    assert post(browser, f"jobs/{job_id}/cancel", word, **headers).status_code == 403
    assert browser.post("/ui/sign-out", headers=headers).status_code == 403
    signing_in = browser.post("/ui/sign-in", data={"token": writer}, headers=headers)
    assert signing_in.status_code == 403
    assert state_of(closed, job_id) == "scheduled"
    get(browser, f"jobs/{job_id}")


def test_a_form_is_good_for_its_own_session_only(
    closed: Api, browser: httpx.Client, writer: str
) -> None:
    job_id = closed.submitted()
    with signed_in(closed, writer) as other:
        foreign = form_token(get(other, f"jobs/{job_id}"))
    for word in (foreign, "", "é"):
        answer = post(browser, f"jobs/{job_id}/cancel", word)
        assert answer.status_code == 403
        assert "the form is of another session" in answer.text
    as_json = browser.post(f"/ui/jobs/{job_id}/cancel", json={"form_token": 7}, headers=ORIGIN)
    assert as_json.status_code == 403
    assert state_of(closed, job_id) == "scheduled"


def test_a_session_is_good_for_the_page_only(closed: Api, browser: httpx.Client) -> None:
    answer = httpx.get(
        f"{closed.http.base_url}/jobs", cookies={COOKIE: browser.cookies[COOKIE]}, trust_env=False
    )
    assert answer.status_code == 401


def test_a_token_that_may_not_read_sees_nothing(closed: Api) -> None:
    secret = token(closed, "submitter", "submit")
    with httpx.Client(base_url=closed.http.base_url, trust_env=False) as browser:
        made = browser.post("/ui/sign-in", data={"token": secret}, headers=ORIGIN)
        assert made.status_code == 303
        refused_page = get(browser, "jobs", 403)
        assert "does not allow &#39;read&#39;" in refused_page
        assert "Sign out" in refused_page


def test_files_are_kept_by_their_digest_and_nothing_else_is_served(api: Api) -> None:
    for name, address in assets.ADDRESSES.items():
        answer = api.http.get(f"/{address}")
        assert answer.headers["content-type"] == assets.TYPES[name]
        assert "immutable" in answer.headers["cache-control"]
    for name in ("page.py", "..%2Fpage.py", "%2e%2e/page.py"):
        assert api.http.get(f"/ui/static/{name}").status_code == 404


def test_how_the_daemons_come_along_is_read_off_the_tables(api: Api) -> None:
    with api.database.begin() as tx:
        tx.execute(text("INSERT INTO sweep_leases VALUES ('reap', 'r-1', now() - interval '1 h')"))
    page = " ".join(Page(get(api.http, "health")).text.split())
    assert "Sweep 'reap' by nobody for 1h00m" in page
    assert "Does a reaper run?" in page
    with api.database.begin() as tx:
        tx.execute(text("DELETE FROM sweep_leases"))


def test_instances_are_those_that_are_not_known_to_be_gone(api: Api, seen: Seen) -> None:
    page = Page(get(api.http, "instances"))
    listed = {a["title"] for tag, a in page.elements if a.get("class") == "id"}
    assert str(seen.running.job_id) in listed
    assert str(seen.scheduled) not in listed


def test_schedules_show_their_next_fires(api: Api, seen: Seen) -> None:
    with api.database.begin() as tx:
        now = tx.scalar(text("SELECT now()"))
    assert isinstance(now, datetime)
    page = Page(get(api.http, "schedules/nightly"))
    times = [a["datetime"] for tag, a in page.elements if tag == "time"]
    first = datetime.fromisoformat(times[0])
    # At two in São Paulo, which is three hours behind.
    assert (first.hour, first.tzinfo) == (5, UTC)
    assert timedelta() < first - now < timedelta(days=1, minutes=1)


def test_a_page_of_a_job_that_nobody_can_have_made_is_no_error(api: Api) -> None:
    for path in ("jobs?after=x", "dead-letters?after=x", "dead-letters?state=odd", "jobs?label=x"):
        get(api.http, path, 422)
    get(api.http, f"jobs?after={UUID(int=7)}", 404)


def test_cost_is_summed_as_the_call_does_and_names_stay_text(api: Api, seen: Seen) -> None:
    total = api.http.get("/cost", params={"by": "label=team"}).json()["total"]["cost"]
    page = Page(get(api.http, "cost?by=label&label=team"))
    assert f"{total} USD" in page.text
    assert "There is no price table" in page.text
    assert MARKUP in get_text(api.http, f"cost?by=label&label={quote(MARKUP)}")
    for path, word in (("cost?by=label", "label"), ("cost?days=3", "days"), ("cost?by=x", "by")):
        assert word in get(api.http, path, 422)


def get_text(http: httpx.Client, path: str) -> str:
    """What of a view is input or text, without the markup."""
    page = Page(get(http, path))
    return "\n".join([page.text, *(a.get("value") or "" for _, a in page.elements)])


def test_a_link_does_not_say_that_something_was_done(api: Api, seen: Seen) -> None:
    assert "is cancelled" not in get(api.http, f"jobs/{seen.running.job_id}?done=cancelled")


def test_health_names_launches_that_ec2_refuses(api: Api, seen: Seen) -> None:
    ref = api.warming()
    with api.database.begin() as tx:
        tx.execute(
            text(
                "UPDATE attempts SET state = 'launching', instance_id = NULL, launched_at = NULL,"
                " blocked_on = 'authorization' WHERE job_id = :job"
            ),
            {"job": ref.job_id},
        )
    assert "1 by authorization" in Page(get(api.http, "health")).text
