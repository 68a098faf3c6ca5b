"""The page in a real browser: each view, changes, the dark, a phone, the keyboard, and axe's word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.api import Api, serving
from tests.browser import Browser, browsing
from tests.page import ALL, MARKUP, Seen, seed, state_of, token, wrote
from tests.prefix import prefixed

DESK, PHONE = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def seen(api: Api) -> Seen:
    return seed(api)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
def page(api: Api, seen: Seen, browser: Browser) -> str:
    """Where the page is."""
    return f"{str(api.http.base_url).rstrip('/')}/ui"


@pytest.fixture
def signed_in(api: Api, browser: Browser, page: str, request: pytest.FixtureRequest) -> None:
    """By the form, with a token that may do all."""
    secret = token(api, request.node.name, *ALL)
    browser.driver.delete_all_cookies()
    browser.open(f"{page}/sign-in?next=health")
    browser.find("#token").send_keys(secret)
    browser.find(".sign-in button").click()
    browser.until("document.querySelector('h1').textContent === 'Health'")


def views(seen: Seen) -> list[str]:
    return [
        *("", f"/jobs/{seen.scheduled}", f"/jobs/{seen.running.job_id}", "/instances"),
        *(f"/jobs/{seen.failed.job_id}", "/schedules", "/schedules/nightly", "/limits"),
        "/cost?by=label&label=team",
        *("/dead-letters?state=any", f"/dead-letters/{seen.letter}", "/health", "/sign-in"),
        "/nothing",
    ]


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"]
)
def test_every_view_is_whole_and_has_no_serious_fault(
    browser: Browser, page: str, seen: Seen, size: tuple[int, int], scheme: str
) -> None:
    browser.driver.delete_all_cookies()
    browser.prefer(scheme)
    browser.size(*size)
    browser.complaints()
    for path in views(seen):
        browser.open(page + path)
        assert browser.faults() == [], path
        assert browser.value("document.documentElement.scrollWidth") <= size[0], path
        assert browser.value("getComputedStyle(document.body).overflowWrap") == "break-word"
        assert browser.value("[...document.scripts].length") == 1
    # That there is no such page, the browser says too.
    assert [one for one in browser.complaints() if "/ui/nothing" not in one] == []


def test_a_fault_would_be_found(browser: Browser, page: str) -> None:
    browser.prefer("light")
    browser.open(page)
    spoil = "document.querySelector('h2').setAttribute('{}', '{}')"
    browser.value(spoil.format("style", "color: #eee") + "; 1")
    assert "style-src" in " ".join(browser.complaints())
    browser.value("document.querySelector('h2').style.color = '#eee'; 1")
    browser.value("document.querySelector('.brand img').removeAttribute('alt'); 1")
    found = " ".join(browser.faults())
    assert "color-contrast" in found
    assert "image-alt" in found


def test_no_other_host_is_asked_by_the_page_or_by_the_apis_documentation(
    api: Api, browser: Browser, page: str, seen: Seen
) -> None:
    here = api.http.base_url.netloc.decode()
    browser.hosts()
    for path in views(seen)[:3]:
        browser.open(page + path)
    browser.open(page.removesuffix("ui") + "docs")
    browser.until("document.querySelector('.opblock') !== null")
    assert browser.hosts() == {here}


def test_the_dark_is_dark(browser: Browser, page: str) -> None:
    def brightness() -> int:
        colour = browser.value("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(",")[:3])

    browser.open(page)
    browser.prefer("dark")
    assert brightness() < 120
    browser.prefer("light")
    assert brightness() > 700


def test_markup_in_a_job_is_text(browser: Browser, page: str, seen: Seen) -> None:
    browser.size(*DESK)
    browser.open(f"{page}/jobs/{seen.scheduled}")
    assert MARKUP in browser.find("main").text
    assert browser.value("document.querySelectorAll('main img, main script').length") == 0


@pytest.mark.usefixtures("signed_in")
def test_a_job_is_cancelled_and_retried(api: Api, browser: Browser, page: str) -> None:
    job_id = api.submitted(delay_s=3600)
    browser.size(*PHONE)
    browser.open(f"{page}/jobs/{job_id}")
    for summary, done, state in (
        ("Cancel", "The job is cancelled.", "cancelled"),
        ("Retry", "The job is scheduled again", "scheduled"),
    ):
        assert browser.find(".change > summary").text == f"{summary}…"
        browser.find(".change > summary").click()
        assert browser.faults() == []
        browser.find(".change button").click()
        browser.until(f"(document.querySelector('.note')?.textContent ?? '').includes('{done}')")
        assert state_of(api, job_id) == state
    assert browser.complaints() == []


@pytest.mark.usefixtures("signed_in")
def test_all_can_be_done_by_keyboard(api: Api, browser: Browser, page: str) -> None:
    job_id = api.submitted(delay_s=3600)
    browser.size(*DESK)
    browser.open(f"{page}/jobs/{job_id}")
    browser.press(Keys.TAB)
    assert browser.focused().text == "Skip to the content"
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press(Keys.ENTER)
    browser.until("document.activeElement.id === 'content'")
    for _ in range(10):
        browser.press(Keys.TAB)
        if browser.focused().tag_name == "summary":
            break
    browser.press(Keys.ENTER, Keys.TAB)
    assert browser.focused().text == "Cancel"
    browser.press(Keys.ENTER)
    browser.until("document.querySelector('.note') !== null")
    assert state_of(api, job_id) == "cancelled"


@pytest.mark.usefixtures("signed_in")
def test_the_cookie_is_out_of_reach_of_scripts_and_for_the_page_alone(
    browser: Browser, page: str
) -> None:
    (cookie,) = browser.driver.get_cookies()
    assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/ui", True, "Strict")
    assert browser.value("document.cookie") == ""
    browser.find(".who button").click()
    browser.until("document.querySelector('.who a')?.textContent === 'Sign in'")
    assert browser.driver.get_cookies() == []


def test_a_log_is_followed_while_it_grows(api: Api, browser: Browser, page: str) -> None:
    ref = api.running(claim="c-7")
    browser.open(f"{page}/jobs/{ref.job_id}")
    browser.find("[data-follow] input").click()
    wrote(api, ref, b"one <b>\n", start=0)
    browser.until("document.querySelector('.log').textContent.includes('one <b>')")
    assert api.exit(ref, exit_code=0).is_success
    browser.until("document.querySelector('[data-follow-state]').textContent === 'It has ended.'")
    assert browser.value("document.querySelectorAll('.log b').length") == 0
    assert browser.complaints() == []


def test_what_is_shown_is_refreshed(api: Api, browser: Browser, page: str) -> None:
    job_id = api.submitted(delay_s=3600)
    browser.open(f"{page}/jobs/{job_id}")
    assert api.http.delete(f"/jobs/{job_id}").is_success
    browser.find("[data-refresh] input").click()
    browser.until("document.querySelector('.lead').textContent.includes('cancelled')")
    assert browser.complaints() == []


def test_beneath_a_proxys_prefix_all_works_too(
    database_url: str, browser: Browser, tmp_path: Path, seen: Seen
) -> None:
    with (
        serving(database_url, callback_url="https://jobs.example.com") as api,
        prefixed(str(api.http.base_url)) as base,
    ):
        browser.driver.delete_all_cookies()
        browser.open(f"{base}/ui/jobs")
        browser.find("#token").send_keys(token(api, "behind", *ALL))
        browser.find(".sign-in button").click()
        browser.until("document.querySelector('h1').textContent === 'Jobs'")
        (cookie,) = browser.driver.get_cookies()
        assert cookie["path"] == "/atemporal/ui"
        job_id = api.submitted(delay_s=3600)
        browser.open(f"{base}/ui/jobs/{job_id}")
        browser.find(".change > summary").click()
        browser.find(".change button").click()
        browser.until("document.querySelector('.note') !== null")
        assert browser.driver.current_url == f"{base}/ui/jobs/{job_id}?done=cancelled"
        assert state_of(api, job_id) == "cancelled"
