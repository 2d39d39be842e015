import datetime

from medray.common.records import RawDocument, RawRecord, Section
from medray.privacy.deidentify import count_phi, deidentify, published
from medray.privacy.surrogates import Surrogates

SURROGATES = Surrogates(b"0123456789abcdef")
SECRETS = ("王建国", "13800138000", "11010519491231002X", "ZY20230517", "文三路",
           "林静", "江城第九医院", "P-00017", "2023")  # fmt: skip


def record(**changes) -> RawRecord:
    values = {
        "record_id": "r1",
        "patient_id": "P-00017",
        "visit_id": "V-000171",
        "hospital": "江城第九医院",
        "department": "呼吸内科",
        "visit_date": "2023-05-17",
        "sections": [
            Section(
                heading="患者信息",
                text="姓名：王建国，男，56岁，电话：13800138000，身份证号：11010519491231002X，"
                "住址：浙江省杭州市西湖区文三路12号，住院号：ZY20230517",
            ),
            Section(heading="主诉", text="咳嗽3天。", date="2023-05-17"),
            Section(
                heading="现病史",
                text="王建国2023年5月14日受凉后咳嗽，5月16日至江城第九医院就诊，号ZY20230517。"
                "体温38.5℃；家属回电13800138000。",
            ),
            Section(heading="治疗", text="林静主治医师查房。编号P-00017。", date="2023-05-20"),
        ],
    }
    return RawRecord(**(values | changes))


def test_nothing_of_the_header_is_left_and_the_findings_are():
    document, labels = deidentify(record(), "ward", SURROGATES, 0.15)
    text = document.model_dump_json()
    assert [secret for secret in SECRETS if secret in text] == []
    assert [s.heading for s in document.sections] == ["主诉", "现病史", "治疗"]
    assert document.sections[0].text == "咳嗽3天。"
    assert "体温38.5℃" in document.sections[1].text
    assert "主治医师查房" in document.sections[2].text
    assert (document.kind, document.source, document.doc_id) == ("emr", "ward", "r1")
    # 王建国, 2 dates, hospital, two numbers, a phone and a doctor; the header is not counted.
    assert count_phi(labels) == {
        "NAME": 1,
        "DATE": 2,
        "HOSPITAL": 1,
        "MRN": 2,
        "PHONE": 1,
        "DOCTOR": 1,
    }


def test_intervals_survive():
    document, _ = deidentify(record(), "ward", SURROGATES, 0.15)
    first, last = (datetime.date.fromisoformat(document.sections[i].date) for i in (0, 2))
    assert (last - first).days == 3
    assert document.date == document.sections[0].date
    onset = first - datetime.timedelta(days=3)
    assert f"{onset.year}年{onset.month}月{onset.day}日受凉" in document.sections[1].text


def test_labels_point_at_the_surrogates_and_hold_what_they_replaced():
    raw = record()
    document, labels = deidentify(raw, "ward", SURROGATES, 0.15)
    for label in labels:
        text = document.sections[label.section].text
        surrogate = text[label.start : label.end]
        assert surrogate and label.original not in surrogate
        assert any(label.original in section.text for section in raw.sections)
    # 现病史 begins with the name; 王建国 becomes 某 with two signs of the calendar.
    assert labels[0][:5] == (1, "text", 0, 4, "NAME") and labels[0].original == "王建国"
    assert "王建国" not in repr(labels)


def test_deidentifying_twice_is_once():
    labelled = "姓名：王建国，主治医师：丁辛，住院号：ZY1234，电话：010-62345678，2020年5月住" \
        "北京协和医院，邮箱a@b.com，住址：江苏省南京市鼓楼区中山路8号，5月1日"  # fmt: skip
    for patient in range(200):  # surrogates hold surnames such as 丁 and 辛
        sections = [Section(heading="病程", text=labelled)]
        raw = record(patient_id=str(patient), hospital="", sections=sections)
        once, labels = deidentify(raw, "ward", SURROGATES, 0.15)
        assert len(labels) == 9
        raw = record(patient_id=str(patient), hospital="", sections=once.sections)
        again, labels = deidentify(raw, "ward", SURROGATES, 0.15)
        assert (again.sections, labels) == (once.sections, [])


def test_a_heading_is_the_label_of_its_text_and_is_kept():
    sections = [
        Section(heading="联系人", text="李小雨，陪同入院。"),
        Section(heading="王建国日常病程", text="病情平稳。"),
    ]
    document, labels = deidentify(record(sections=sections), "ward", SURROGATES, 0.15)
    assert [(x.section, x.field, x.start, x.original) for x in labels][:1] == [
        (0, "text", 0, "李小雨")
    ]
    assert document.sections[0].heading == "联系人"
    assert document.sections[1].text == "病情平稳。"


def test_a_patient_is_the_same_person_in_every_record_and_on_one_side_of_the_split():
    visits = [record(record_id=f"r{i}", visit_date=f"2023-0{i}-01") for i in range(1, 5)]
    documents = [deidentify(visit, "ward", SURROGATES, 0.5)[0] for visit in visits]
    assert len({d.patient_id for d in documents}) == 1
    assert len({d.split for d in documents}) == 1
    assert len({d.sections[1].text[:5] for d in documents}) == 1


def test_surrogates_do_not_change_the_number_of_sentences():
    from medray.common.sentences import split_sentences

    raw = record()
    document, _ = deidentify(raw, "ward", SURROGATES, 0.15)
    for before, after in zip(raw.sections[1:], document.sections, strict=True):
        assert len(split_sentences(before.text)) == len(split_sentences(after.text))


def test_a_given_split_and_unreadable_dates():
    document, _ = deidentify(record(split="dev", visit_date="unknown"), "ward", SURROGATES, 0.0)
    assert (document.split, document.date) == ("dev", "")


def test_published_text_is_kept():
    raw = RawDocument(doc_id="d", title="肺炎", sections=[Section(heading="", text="2019年指南")])
    document = published(raw, "books", 0.0)
    assert document.sections == raw.sections and document.split == "train"
    assert document.superseded_by == ""


def test_a_date_that_the_source_has_moved_stays():
    document, _ = deidentify(record(visit_date="2150-01-05 10:00:00"), "mimic", SURROGATES, 0.0)
    assert document.date == "2150-01-05"
