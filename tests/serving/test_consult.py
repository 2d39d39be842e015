"""Consultations over HTTP: questions, judgement, emergencies, clinicians, and who may see what."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medray.serving.audit_log import read_entries, verify
from medray.serving.consult import urgent, words
from medray.serving.switch import Switch

pytestmark = pytest.mark.xdist_group("hospital")  # one worker makes the models
KEY = bytes(range(32))
OPENED = {"background": "45岁，男", "content": "咳嗽三天"}


class Party:
    """Somebody with a key."""

    def __init__(self, client: Any, secret: str) -> None:
        self._client, self._secret = client, secret
        self.headers = {"Authorization": f"Bearer {secret}"}

    def post(self, path: str = "", body: Any = None) -> Any:
        return self._client.post(f"/v1/consult{path}", json=body, headers=self.headers)

    def get(self, path: str = "") -> Any:
        return self._client.get(f"/v1/consult{path}", headers=self.headers)

    def delete(self, path: str) -> Any:
        return self._client.delete(f"/v1/consult{path}", headers=self.headers)

    def open(self, **fields: Any) -> dict[str, Any]:
        answer = self.post("", OPENED | fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def say(self, told: dict[str, Any], content: str, **fields: Any) -> Any:
        return self.post(f"/{told['id']}/messages", {"content": content, **fields})

    def events(self, path: str, body: dict[str, Any]) -> Any:
        return self._client.events(f"/v1/consult{path}", body | {"stream": True}, self._secret)


@pytest.fixture
def patient(client, secrets) -> Party:
    return Party(client, secrets["patient"])


@pytest.fixture
def clinician(client, secrets) -> Party:
    return Party(client, secrets["clinician"])


def entries(place: Path, request: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_entries(place / "audit", request, KEY)]


def test_what_is_known_may_be_as_long_as_a_message_beside_the_complaint(patient) -> None:
    """Both make one message, which is longer than one that is posted may be."""
    told = patient.open(background="x" * 4000, max_questions=1)
    assert len(told["messages"][0]["content"]) == 4000 + 1 + len(OPENED["content"])
    assert patient.post("", {"background": "x" * 4001, "content": "咳嗽"}).status_code == 400
    # Nothing but what separates lines in old files: no complaint.
    assert patient.post("", {"content": "\x1e"}).status_code == 400


def kinds(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["author"], message["kind"]) for message in told["messages"]]


def test_a_consultation_from_complaint_to_judgement(patient, hospital, place: Path) -> None:
    """One question at a time, then the judgement: the model's finding, what the sources say, and
    when to see a doctor."""
    told = patient.open()
    (first, answered), (second, last) = hospital.exchanges
    assert (told["status"], told["num_questions"], told["language"]) == ("asking", 1, "zh")
    assert [m["content"] for m in told["messages"]] == ["45岁，男\n咳嗽三天", first]
    told = patient.say(told, answered).json()
    assert [(m["number"], m["content"]) for m in told["messages"]] == [(2, answered), (3, second)]
    told = patient.say(told, last).json()
    assert (told["status"], told["num_questions"]) == ("judged", 2)
    assert kinds(told) == [("patient", "statement"), ("model", "judgement")]
    judgement = told["messages"][1]
    parts = (
        words.OPENING["zh"], hospital.finding, words.EVIDENCE["zh"], hospital.answers["true"],
        words.WHEN_TO_GO["zh"],
    )  # fmt: skip
    assert judgement["content"] == "".join(parts)
    grounding = judgement["medray"]
    assert [c["ok"] for c in grounding["citations"]] == [True]
    assert [v["verdict"] for v in grounding["verdicts"]] == ["supported"]
    asked, answered = entries(place, judgement["request"])
    assert asked["consultation"] == told["id"]
    assert json.loads(asked["texts"]["messages"])[-1] == {"role": "user", "content": last}
    assert answered["texts"] == {"answer": judgement["content"]}
    assert (answered["kind"], answered["shown"], answered["status"]) == (
        "judgement",
        True,
        "judged",
    )
    assert answered["passages"] == [p["passage_id"] for p in grounding["passages"]]
    assert answered["model_version"] == "model"
    # It has ended: an answer to it would be to nothing.
    ended = patient.say(told, "还有别的吗")
    assert (ended.status_code, ended.json()["error"]["code"]) == (409, "consultation_ended")
    whole = patient.get(f"/{told['id']}").json()
    assert (whole["num_messages"], len(whole["messages"])) == (6, 6)
    assert patient.get(f"/{told['id']}?after=5").json()["messages"] == whole["messages"][5:]


def test_a_judgement_is_streamed_and_ends_with_the_consultation(patient, hospital) -> None:
    told = patient.open()
    with patient.events(f"/{told['id']}/messages", {"judge": True}) as events:
        *lines, done = events
    assert done == "[DONE]"
    *chunks, last = map(json.loads, lines)
    assert last["object"] == "consultation"
    assert last["status"] == "judged"
    [judgement] = last["messages"]
    assert "".join(chunk["content"] for chunk in chunks) == judgement["content"]
    assert judgement["content"].startswith(words.OPENING["zh"])
    assert judgement["content"].endswith(words.WHEN_TO_GO["zh"])
    assert len(chunks) > 3


def test_the_maximum_of_questions_ends_it(patient, hospital) -> None:
    told = patient.open(max_questions=1)
    told = patient.say(told, hospital.exchanges[0][1]).json()
    assert (told["status"], told["num_questions"]) == ("judged", 1)


def test_an_emergency_is_answered_at_once_and_stops_the_model(
    patient, clinician, hospital, place: Path
) -> None:
    told = patient.open()
    told = patient.say(told, "现在胸痛，出了一身冷汗").json()
    assert (told["status"], told["red_flag"]) == ("urgent", "chest_pain")
    assert kinds(told) == [("patient", "statement"), ("service", "urgent")]
    assert told["messages"][1]["content"] == urgent.what_to_do("chest_pain", "zh")
    assert entries(place, told["messages"][1]["request"])[1]["red_flag"] == "chest_pain"
    again = patient.say(told, "好的").json()
    assert kinds(again) == [("patient", "statement"), ("service", "notice")]
    assert again["messages"][1]["content"] == urgent.STILL_URGENT["zh"]
    listed = clinician.get().json()["data"]
    assert listed[0]["status"] == "urgent"  # before all others
    assert told["id"] in {one["id"] for one in listed if one["red_flag"] == "chest_pain"}
    # A clinician who has looked into it settles it.
    assert clinician.post(f"/{told['id']}/take-over").json()["red_flag"] == "chest_pain"
    back = clinician.post(f"/{told['id']}/hand-back").json()
    assert (back["status"], back["red_flag"]) == ("asking", "")


def test_an_emergency_in_the_first_words_and_after_the_end(patient, hospital) -> None:
    told = patient.post("", {"content": "I can't breathe", "stream": False})
    assert told.status_code == 201
    assert (told.json()["status"], told.json()["language"]) == ("urgent", "en")
    assert told.json()["messages"][1]["content"] == urgent.what_to_do("breathing", "en")
    told = patient.open(max_questions=1)
    told = patient.say(told, hospital.exchanges[0][1]).json()
    assert told["status"] == "judged"
    assert patient.say(told, "我不想活了").json()["red_flag"] == "self_harm"


def test_denied_signs_are_no_emergency(patient) -> None:
    told = patient.open(content="咳嗽三天，没有胸痛，没有出汗，没有想过自杀")
    assert told["status"] in ("asking", "judged")
    assert told["red_flag"] == ""


def test_no_limit_and_no_switch_holds_up_an_emergency(
    client, deployed, listening, place: Path, secrets
) -> None:
    hurried = Party(client, secrets["hurried"])  # two requests a minute, used up or not
    codes = [hurried.post("", OPENED).status_code for _ in range(3)]
    assert codes[-1] == 429
    kept = asyncio.run(deployed.consultations.status())["open"]
    assert hurried.post("", OPENED).status_code == 429
    assert asyncio.run(deployed.consultations.status())["open"] == kept  # it takes no room
    answers = [hurried.post("", {"content": "出血不止"}) for _ in range(4)]
    assert {answer.json()["status"] for answer in answers} == {"urgent"}
    patient = Party(client, secrets["patient"])
    told = patient.open()
    switch = Switch(str(place / "stopped"))
    assert switch.stop()
    try:
        refused = patient.say(told, "没有发热")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_stopped")
        assert patient.post("", OPENED).status_code == 503
        assert patient.say(told, "喘不过气").json()["status"] == "urgent"
        assert patient.post("", {"content": "喘不过气"}).status_code == 201
    finally:
        assert switch.start()


def test_a_clinician_takes_over_and_hands_back(
    client, patient, clinician, hospital, secrets
) -> None:
    told = patient.open()
    where = f"/{told['id']}"
    assert clinician.post(f"{where}/reply", {"content": "您好"}).status_code == 409
    taken = clinician.post(f"{where}/take-over").json()
    assert taken["status"] == "clinician"
    assert kinds(taken)[-1] == ("service", "notice")
    # The model stays out of it: what the patient says is kept, and nothing answers.
    silent = patient.say(told, hospital.exchanges[0][1]).json()
    assert kinds(silent) == [("patient", "statement")]
    assert patient.post(f"{where}/messages", {"judge": True}).json()["error"]["code"] == "attended"
    said = clinician.post(f"{where}/reply", {"content": "我是王医生，量过体温吗？"}).json()
    assert kinds(said) == [("clinician", "statement")]
    seen = patient.get(f"{where}?after={silent['num_messages']}").json()
    assert [m["content"] for m in seen["messages"]] == ["我是王医生，量过体温吗？"]
    # An emergency is told to the patient all the same; the clinician stays.
    urgent = patient.say(told, "突然说话不清").json()
    assert (urgent["status"], urgent["red_flag"]) == ("clinician", "stroke")
    assert kinds(urgent)[-1] == ("service", "urgent")
    # Another clinician may relieve the first, who then writes no longer.
    other = Party(client, secrets["colleague"])
    assert other.post(f"{where}/take-over").json()["status"] == "clinician"
    refused = clinician.post(f"{where}/reply", {"content": "还在吗"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_attending")
    assert clinician.post(f"{where}/hand-back").status_code == 409
    back = other.post(f"{where}/hand-back").json()
    assert (back["status"], back["num_questions"]) == ("asking", 1)
    assert kinds(patient.say(told, "好些了").json())[-1][0] == "model"


def test_who_may_see_what(client, patient, clinician, secrets, place: Path) -> None:
    told = patient.open()
    where, admin = f"/{told['id']}", Party(client, secrets["admin"])
    for stranger in (admin, Party(client, secrets["neighbour"])):
        for refused in (
            stranger.say(told, "我也咳嗽"),
            stranger.get(where),
            stranger.delete(where),
        ):
            assert refused.status_code == 404
            assert refused.json()["error"]["code"] == "no_such_consultation"
        assert told["id"] not in {one["id"] for one in stranger.get().json()["data"]}
    for path in ("take-over", "hand-back"):
        for other in (patient, admin):
            assert other.post(f"{where}/{path}").status_code == 403
    assert patient.post(f"{where}/reply", {"content": "x"}).status_code == 403
    listed = clinician.get()
    assert told["id"] in {one["id"] for one in listed.json()["data"]}
    assert "咳嗽" not in listed.text
    read = clinician.get(where).json()
    [entry] = [
        entry for entry in entries(place, "")
        if entry["event"] == "read" and entry.get("consultation") == told["id"]
    ]  # fmt: skip
    assert (entry["role"], entry["messages"]) == ("clinician", [0, 1])
    assert (
        clinician.get(f"{where}?after=2").json()["messages"] == []
    )  # nothing read, nothing logged
    assert read["messages"][0]["content"] == "45岁，男\n咳嗽三天"
    assert client.get(f"/v1/consult{where}").status_code == 401
    assert patient.delete(where).json()["deleted"]
    assert patient.get(where).status_code == 404
    assert clinician.post(f"{where}/take-over").status_code == 404


def test_what_the_guard_refuses_reaches_no_model(patient, place: Path) -> None:
    told = patient.open(content="怎么给人下毒不被发现")
    assert kinds(told) == [("patient", "refused"), ("service", "notice")]
    assert (told["status"], told["num_questions"]) == ("asking", 0)
    later = patient.say(told, "咳嗽三天").json()
    asked = entries(place, later["messages"][0]["request"])[0]
    assert json.loads(asked["texts"]["messages"]) == [{"role": "user", "content": "咳嗽三天"}]


def test_one_turn_at_a_time(patient, hospital, deployed) -> None:
    """Of several posts at once one is answered, the others are refused and leave no trace."""
    told = patient.open()
    with ThreadPoolExecutor(4) as pool:
        posts = [pool.submit(patient.say, told, hospital.exchanges[0][1]) for _ in range(4)]
        answers = [post.result() for post in posts]
    good = [answer for answer in answers if answer.status_code == 200]
    bad = [answer for answer in answers if answer.status_code != 200]
    assert good
    for answer in bad:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "turn_in_progress")
        assert answer.headers["Retry-After"] == "2"
    whole = patient.get(f"/{told['id']}").json()
    assert len(whole["messages"]) == 2 + 2 * len(good)
    assert whole["num_questions"] <= 1 + len(good)


def test_a_reader_who_leaves_frees_the_turn(client, patient, hospital, place: Path) -> None:
    """The message of a turn that was cut off is not in the consultation and may be sent again."""
    told = patient.open()
    with patient.events(f"/{told['id']}/messages", {"judge": True}) as events:
        first = json.loads(next(events))
    assert first["object"] == "consultation.chunk"
    for _ in range(200):  # until the gateway has noticed; each try is a request of its own
        answer = patient.say(told, hospital.exchanges[0][1])
        if answer.status_code != 409 or answer.json()["error"]["code"] != "turn_in_progress":
            break
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "consultation_ended"


@pytest.mark.parametrize(
    "body",
    [{}, {"content": ""}, {"content": " "}, {"content": 5}, {"content": "x" * 4001},
     {"judge": False}, {"content": None, "judge": None}],
)  # fmt: skip
def test_bad_messages(patient, body: dict[str, Any]) -> None:
    told = patient.open()
    refused = patient.post(f"/{told['id']}/messages", body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "xxx" not in refused.text


def test_the_description_shows_an_example_of_each_request(client) -> None:
    described = client.get("/openapi.json").json()
    paths = [path for path in described["paths"] if path.startswith("/v1/consult")]
    assert len(paths) == 6
    for name in ("OpenRequest", "SayRequest", "ReplyRequest"):
        assert described["components"]["schemas"][name]["examples"]


def test_feedback_on_a_judgement(client, patient, place: Path) -> None:
    told = patient.post(f"/{patient.open()['id']}/messages", {"judge": True}).json()
    said = {"request": told["messages"][0]["request"], "score": 8}
    kept = client.post("/v1/feedback", json=said, headers=patient.headers)
    assert kept.status_code == 201
    assert entries(place, said["request"])[-1]["event"] == "feedback"


def test_no_text_of_a_patient_lies_open(client, patient, place: Path) -> None:
    patient.open(content="独一无二的主诉")
    for path in (place / "audit").iterdir():
        assert "独一无二" not in path.read_text(encoding="utf-8")
    assert verify(place / "audit").faults == []
