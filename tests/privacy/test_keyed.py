"""Values that an export's keys name."""

import pytest

from medray.privacy.keyed import find_keyed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"patName": "张伟", "bedNo": "12", "attending": "李强", "memo": "先抬腿"}',
            [("张伟", "NAME"), ("12", "MRN"), ("李强", "DOCTOR")],
        ),
        (
            '<patient id="7"><name lang="zh">张伟</name><auditor>Mary Lee</auditor></patient>',
            [("张伟", "NAME"), ("Mary Lee", "DOCTOR")],
        ),
        (
            "psn_name\t张伟\nhosp_name(机构)\t青河县医院\nsex\t男",
            [("张伟", "NAME"), ("青河县医院", "HOSPITAL")],
        ),
        ("name=张伟;tel=13800138000", [("张伟", "NAME"), ("13800138000", "PHONE")]),
        (
            '{"brandName": "拜新同", "drugName": "阿司匹林", "itemName": "血常规", "k": "9"}',
            [],
        ),
        ("https://example.org/a?name=b 体温=38.5 K=3.9", []),
        ("average copies per cell=2.1，结论:无扩增", []),
    ],
)
def test_the_values_of_telling_keys(text, expected):
    found = [(start, end, label) for start, end, label in find_keyed(text)]
    assert sorted((text[a:b], label) for a, b, label in found) == sorted(expected)
