"""The page in a real browser over the real API: signing in, asking, consulting, taking over.

Needs playwright (pip) and a chromium, on the path or playwright's own; skipped without either.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medray.serving.consult import words

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.xdist_group("hospital")  # one worker makes the models
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        if found is None and not own.exists():
            pytest.skip(
                f"no chromium: none of {', '.join(NAMES)} on the path, none of playwright's"
            )
        sandbox = [] if os.getuid() else ["--no-sandbox"]  # chromium refuses root with one
        browser = playwright.chromium.launch(executable_path=found, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, client) -> Iterator[Any]:
    """Opens the page as somebody with a key; in the end no script may have failed."""
    contexts, faults = [], []

    def visit(secret: str, locale: str = "zh-CN") -> Any:
        context = browser.new_context(locale=locale, viewport={"width": 1000, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.fill("#key", secret)
        page.click("#sign-in button")
        page.wait_for_selector("#chat:not([hidden])")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


def text(page: Any, selector: str) -> str:
    return page.locator(selector).inner_text()


def test_a_wrong_key_is_told_and_a_good_one_signs_in(
    browser, client, visit, secrets, provider
) -> None:
    page = browser.new_page(locale="en-GB")
    page.goto(f"http://127.0.0.1:{client.port}/")
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    page.wait_for_selector("#status:has-text('does not hold')")
    assert page.is_hidden("#chat")
    page.close()
    page = visit(secrets["patient"])
    assert page.evaluate("document.documentElement.lang") == "zh"
    page = visit(provider.token())
    assert page.is_visible("#view-attend")  # a physician's
    page.click("#sign-out")
    assert page.is_visible("#sign-in") and page.is_hidden("#chat")


def test_an_answer_its_source_and_a_rating(visit, hospital, secrets) -> None:
    page = visit(secrets["clinician"])
    page.fill("#question", hospital.questions["true"])
    page.press("#question", "Control+Enter")
    page.wait_for_selector(".turn.assistant .tools")
    assert text(page, ".turn.assistant > p >> nth=0") == hospital.answers["true"]
    page.click(".cite")
    page.wait_for_selector("dialog[open]")
    assert text(page, "#source-title") == hospital.cited.title
    assert text(page, "#source-text mark") == hospital.cited.text.split("，")[0]
    page.keyboard.press("Escape")
    page.click(".tools button >> nth=1")
    page.fill(".turn form input[type=number]", "8")
    page.click(".turn form button")
    page.wait_for_selector("#status:has-text('评价已保存')")


def test_a_consultation_by_keyboard(visit, hospital, secrets) -> None:
    page = visit(secrets["patient"])
    assert page.is_hidden("#view-attend")  # patients take nothing over
    page.click("#view-consult")
    page.fill("#background", "45岁，男")
    page.fill("#complaint", "咳嗽三天")
    page.press("#complaint", "Control+Enter")
    for number, (question, answer) in enumerate(hospital.exchanges, 1):
        page.wait_for_selector(f"#consult-status:has-text('已问 {number} 个问题')")
        assert text(page, "#consult-turns li:last-child p") == question
        assert page.evaluate("document.activeElement.id") == "answer"
        page.keyboard.type(answer)
        page.keyboard.press("Control+Enter")
    page.wait_for_selector("#consult-turns .cite")
    judgement = text(page, "#consult-turns li:last-child > p >> nth=0")
    assert hospital.finding in judgement and "何时就医" in judgement
    assert page.is_hidden("#say-it") and page.is_hidden("#judge") and page.is_hidden("#alarm")
    page.click("#consult-turns .cite")
    assert text(page, "#source-title") == hospital.cited.title
    page.keyboard.press("Escape")
    # Loaded again, the page finds the consultation; ended, it is gone everywhere.
    page.reload()
    page.wait_for_selector("#consult-turns .cite")
    assert page.locator("#consult-turns li").count() == 6
    page.click("#end")
    page.wait_for_selector("#status:has-text('内容已清除')")
    assert page.is_visible("#open") and page.locator("#consult-turns li").count() == 0


def test_an_emergency_is_plain_and_a_clinician_takes_over(visit, secrets) -> None:
    patient = visit(secrets["patient"], "en-GB")
    patient.click("#view-consult")
    patient.fill("#complaint", "Crushing chest pain and sweating")
    patient.click("#begin")
    alarm = patient.get_by_role("alert")
    alarm.wait_for(state="visible")
    assert words.urgent("chest_pain", "en").split("\n")[0] in alarm.inner_text()
    assert patient.is_hidden("#judge")
    identifier = patient.evaluate("sessionStorage.getItem('medray-consult')")

    doctor = visit(secrets["clinician"], "en-GB")
    doctor.click("#view-attend")
    doctor.click(f"[data-consultation='{identifier}']")
    doctor.wait_for_selector("#attended-turns li")
    assert "chest pain" in text(doctor, "#attended-title")
    doctor.click("#take-over")
    doctor.fill("#words", "This is Dr Wang. Has an ambulance been called?")
    doctor.press("#words", "Control+Enter")
    patient.wait_for_selector(".turn.clinician:has-text('Dr Wang')")
    assert "A clinician is talking" in text(patient, "#consult-status")
    patient.fill("#answer", "Yes, it has")
    patient.click("#say-it")
    doctor.wait_for_selector("#attended-turns li:has-text('Yes, it has')")
    assert patient.locator(".turn.assistant").count() == 0  # the model said nothing
    doctor.click("#hand-back")
    patient.wait_for_selector("#consult-turns li:has-text('the model goes on')")
    patient.wait_for_selector("#alarm", state="hidden")
    assert doctor.is_hidden("#reply")


def test_the_page_speaks_two_languages_and_fits_a_phone(visit, secrets) -> None:
    page = visit(secrets["clinician"])
    page.set_viewport_size({"width": 360, "height": 740})
    for view in ("chat", "consult", "attend", "search"):
        page.click(f"#view-{view}")
        seen = {}
        for _ in range(2):
            page.click("#language")
            language = page.evaluate("document.documentElement.lang")
            seen[language] = text(page, f"#{view}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert "undefined" not in page.inner_text("body")
        assert seen["zh"] != seen["en"]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, textarea')].filter(e => !e.labels.length).length"
    )
    assert unnamed == 0
