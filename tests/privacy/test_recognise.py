"""Recall and precision on hand-made text: nobody in it exists."""

import itertools
import time

import pytest

from medray.privacy.numbers import has_valid_check_digit
from medray.privacy.recognise import find_phi, known_strings

# {class: [(text, what is PHI in it)]}
PLANTED = {
    "NAME": [
        ("姓名：王建国，性别：男", ["王建国"]),
        ("姓名：欧阳明月性别：女", ["欧阳明月"]),
        ("姓名:阿卜杜拉·买买提 年龄:45岁", ["阿卜杜拉·买买提"]),
        ("姓名：李 伟 性别：男", ["李 伟"]),
        ("患者刘洋，男，56岁，因咳嗽三天入院", ["刘洋"]),
        ("病人陈秀英因头痛就诊", ["陈秀英"]),
        ("家属赵敏代诉病史，其妻孙丽，体健", ["赵敏", "孙丽"]),
        ("家属傅强陪同入院，家属萧晨志（电话13800138000）", ["傅强", "萧晨志"]),
        ("联系人：周大福", ["周大福"]),
        ("已告知王先生手术风险", ["王"]),
        ("陪产崔诗涵，户名应为潘健而非吴安琪，", ["崔诗涵", "潘健", "吴安琪"]),
        ("外婆姚桂兰带大，父顾卫东母李秀英均在外地打工", ["姚桂兰", "顾卫东", "李秀英"]),
        ("姓名|床号\n邓春花|12\n于一|13", ["邓春花", "于一"]),
        ("父向丽华死于肝癌，母安建国健在，一弟韩洋体健", ["向丽华", "安建国", "韩洋"]),
        ("夜间12床曾思远躁动，次女郜勇陪护", ["曾思远", "郜勇"]),
        ("Spoke at length; John Turner and Emily Fisher agreed.", ["John Turner", "Emily Fisher"]),
        ("麻醉机报警。\n于桂兰 2023-05-17", ["于桂兰"]),
        ("患者养女杨明月、孙子冯小妹轮流陪护", ["杨明月", "冯小妹"]),
        ("请示汪静后，通知血透室钱娜", ["汪静", "钱娜"]),
        ("邻居胡小英说患者昨夜未归，被田新花用拳头击打", ["胡小英", "田新花"]),
        ("Next of kin James Miller 984-555-6970, 2 Elm Street", ["James Miller"]),
        ("Family (Oluwaseun Rice and Kim Wood) updated", ["Oluwaseun Rice", "Kim Wood"]),
    ],
    "DOCTOR": [
        ("主治医师：张志强", ["张志强"]),
        ("医师签名：林静", ["林静"]),
        ("请郑国华主任医师会诊", ["郑国华"]),
        ("术者：黄磊，一助：徐涛", ["黄磊", "徐涛"]),
        ("按吴医生医嘱服药", ["吴"]),
        ("营养师郑建国评估NRS2002评分4分", ["郑建国"]),
        ("I助林波，二线钱娜", ["林波", "钱娜"]),
        ("【护士】高婷【联系人】", ["高婷"]),
        ("Assistants: Ann Hill, Joe Wood.", ["Ann Hill", "Joe Wood"]),
        ("seen by Dr. Yamamoto, Riverside General Hospital", ["Yamamoto"]),
    ],
    "ID": [
        ("证件11010519491231002X登记", ["11010519491231002X"]),
        ("身份证号：11010519491231002X", ["11010519491231002X"]),
        (
            "身份证号：１１０１０５１９４９１２３１００２１，汉族",
            ["１１０１０５１９４９１２３１００２１"],
        ),
        ("医保卡号：A12345678", ["A12345678"]),
    ],
    "PHONE": [
        ("电话13800138000。", ["13800138000"]),
        ("联系电话：138 0013 8000", ["138 0013 8000"]),
        ("致电010-62345678确认", ["010-62345678"]),
        ("电话021-20554874转779 13912345678", ["021-20554874转779", "13912345678"]),
        ("手机：+86-13912345678", ["+86-13912345678"]),
    ],
    "EMAIL": [
        ("邮箱13800138000@163.com可达", ["13800138000@163.com"]),
        ("tel 555-2581, x1990@126.com", ["x1990@126.com"]),  # no extension 1990
    ],
    "AGE": [
        ('B - 91 female, POD 2; seen Ann Hill, 92, at; {"age":"93"}', ["91", "92", "93"]),
        ("Age/Sex: 94/female, 95-year-old", ["94", "95"]),
    ],
    "MRN": [
        ("住院号：ZY20230517", ["ZY20230517"]),
        ("病理号：Z0470555。", ["Z0470555"]),
        ("病案号为0012345，", ["0012345"]),
        ("床号：12", ["12"]),
        ("15床患者", ["15"]),
        ("科别骨科　床+4　", ["+4"]),
        ("请保洁把加8床边的尿壶换了", ["加8"]),
        ("| 姓名 | 性别 | 住院号 | 床号 |\n| 无 | 女 | 7001 | 3 |", ["7001", "3"]),
        ("|姓名|床号|\n||\n|王芳|3|", ["3"]),
        ("患者姓名|王芳|住院号|7001|床号|+10", ["7001", "+10"]),
        ("姓名,住院号,床号,医生\n王芳,7001,加8,李强\n", ["7001", "加8"]),
        ("负责加5、12两床，母床+9。ICU33床 床号:加4ID号:7654321", ["加5", "12", "+9", "33", "加4"]),
        ("<bedNo>7</bedNo> 收据No.8899123 mdtrt_id\t652981\n", ["7", "8899123", "652981"]),
    ],
    "ADDRESS": [
        ("住址：浙江省杭州市西湖区文三路12号，", ["浙江省杭州市西湖区文三路12号"]),
        ("患者家住江苏省南京市鼓楼区中山路8号3单元", ["江苏省南京市鼓楼区中山路8号3单元"]),
        ("现住江宁市人民路12号3栋101室。", ["江宁市人民路12号3栋101室"]),
        ("工作单位：红星机械厂。", ["红星机械厂"]),
        ("开发票，抬头宏达物流公司，", ["宏达物流公司"]),
        ("体检 云岭煤矿 血压138/86", ["云岭煤矿"]),
        ("工伤材料：红星机械厂出具", ["红星机械厂"]),
        ("称“宏达物流公司的同事都在看我”", ["宏达物流公司"]),
        ("费用由红星机械厂垫付，后调至南屏小学看门", ["红星机械厂", "南屏小学"]),
    ],
    "HOSPITAL": [
        ("患者于北京协和医院行胃镜检查", ["北京协和医院"]),
        ("转入浙江大学医学院附属第一医院治疗", ["浙江大学医学院附属第一医院"]),
        ("曾在长沙市第三人民医院住院", ["长沙市第三人民医院"]),
        ("您好这里是云岭县妇幼保健院随访中心", ["云岭县妇幼保健院"]),
        ("就医地医院东港市中医院备案", ["东港市中医院"]),
        ("必要时转上级医院（同德医院），置管医院仁济医院", ["同德医院", "仁济医院"]),
    ],
    "DATE": [
        ("2023年5月17日入院", ["2023年5月17日"]),
        ("于2015-09-02手术，2015/10/9化疗", ["2015-09-02", "2015/10/9"]),
        ("2014年2月确诊，2019年复发", ["2014年2月", "2019年"]),
        ("5月17日再次发热", ["5月17日"]),
        ("标本20230517送检", ["20230517"]),
        ("LMP 4/3, EDD 1/8. Triage note April 3 1642: stable", ["4/3", "1/8", "April 3"]),
        (
            "于2017-3-31、4-25、5-17化疗，NSE 522017-6-20复查",
            ["2017-3-31", "4-25", "5-17", "2017-6-20"],
        ),
        ("1.2019-03-02拔管；2.3月5日换药", ["2019-03-02", "3月5日"]),
        (
            "2020/3/2021时，07年5月6日02:15，电话021-88886666 2014/11/20",
            ["2020/3/20", "07年5月6日"],
        ),
        ("姓名,入院日期,诊断,科室\n王芳,5/3,肺炎,内科\n", ["5/3"]),
        (
            "离院2014/10/1118:00，返院2003-07-038:00，2018-0709:10入院，2017052424h尿量",
            ["2014/10/11", "2003-07-03", "2018-07", "20170524"],
        ),
        ("2.1999 年 12 月 7 日查房\n3.20211014出院", ["1999 年 12 月 7 日", "20211014"]),
        ("10/1 1930: MD paged. Post-discharge call July 10, 48h.", ["10/1", "July 10"]),
        ("leave from 3/12 to 4/18, seen January 6 16:05", ["3/12", "4/18", "January 6"]),
        ("born february 15th 1962 , transplant in 12/07, who", ["february 15th 1962", "12/07"]),
        (
            "s/p cholecystectomy 1992 at an outside facility, quit smoking 1994, no etoh",
            ["1992", "1994"],
        ),
    ],
}


@pytest.mark.parametrize("label", PLANTED)
def test_recall_by_class(label):
    for text, expected in PLANTED[label]:
        found = [(text[s.start : s.end], s.label) for s in find_phi(text)]
        for value in expected:
            assert (value, label) in found, (text, found)


@pytest.mark.parametrize(
    "text",
    [
        "患者黄疸，高热三天，患者白细胞升高，患者于我院就诊",
        "患者常感乏力，患者于家中跌倒，患者高血压10年，患者康复。",
        "在当地医院治疗，转至上级医院，就诊于外院，我院，某医院，市人民医院",
        "高年资医师查看患者，主管医师同意，心内科主任医师会诊，全科医生",
        "WBC 12.3×10^9/L，体温38.5℃，血压138/90mmHg，1500-2000ml，3.14",
        "咳嗽3天，伴胸闷2小时，1月前，每日2次，0.5g",
        "胃窦部小弯侧胃壁增厚，左侧颞叶区低密度灶，医院获得性肺炎",
        "患者安静，患者梅毒，患者焦虑，患者包块，患者凌晨，患者温度",
        "符合霍奇金淋巴瘤，舒巴坦、米诺环素、阿米卡星敏感，巴氏征阴性，肌张力高",
        "宜饮食清淡、易消化，注意劳逸结合，注意个人卫生等，常见于青年女性",
        "Ped: Apgars 8/9. Kernig and Babinski neg.",
        "Austin Flint murmur, Grey Turner sign, Insurance: Medicare. Platelets 2000, glucose 95.",
        "Given 2000 mL of saline at 1945 hours; seen around 1930.",
        "距肛门5-9cm，每日2、3-4次，淋巴结3/14，腰4-5、5-6椎间盘，in 1/5 lymph nodes",
        "单位：mmol/L 阿普加评分9-10-10 小学文化 银行卡 斯坦福分型，赫赛汀、康莱特，师承主任中医师",
        "项目|结果|单位\n白细胞|9.5|10^9/L\n年龄|56|岁",
        "保险公司审核，制药有限公司生产，本公司",
        "舒芬太尼25μg、帕洛诺司琼0.25mg、戈舍瑞林3.6mg，间隔30分钟 可联系家属，孕8周大小",
        "接触史约8年，化疗3程顺利，ST段水平压低，余正常，脉沉细，镇痛镇静，无外省旅居史，月经5/28-30",
        "患者：那阿司匹林还吃吗\n医生：先停，查T-SPOT；国药准字H20033567，互联网医院，送检医院",
        "项目\t结果\t单位\n谷丙转氨酶\t86↑\tU/L\n白蛋白\t33.1↓\tg/L",
        "Triage RN on duty, contact WeChat, Ann Arbor III, Transcribed: 2 pages",
        "修正诊断：肺炎；麻醉医师：ASA Ⅱ级；无分叶毛刺，他克莫司谷浓度6.4，全髋关节，铜蓝蛋白正常",
        "联系不上时可拨打居委会，通过村委会联系，关注医院网站，加营养师微信",
        "moderate MR. Recs: start aspirin. In all 139 patients (109 male and 30 female)",
        "黄连6g、焦栀子9g、芦根30g；10%中性福尔马林固定；霍夫曼征、托马斯征阴性；植入医院：无",
        "温馨提示：同班同学也有，外用阿达帕林；家庭地址不详；文化程度小学；中医住院病历·四诊摘要",
        "doxycycline 100 mg x 5/7 then stop; INR 2.4, 3.1 on warfarin",
        "术程顺利，查见环周隆起，予蒲地蓝口服，谢谢医生，祝宝宝健康",
    ],
)
def test_medical_language_is_left_alone(text):
    assert [(text[s.start : s.end], s.label) for s in find_phi(text)] == []


def test_check_digit_of_the_standards_example():
    # GB 11643-1999's own example: sum of digit x weight = 167, 167 mod 11 = 2, which stands for X.
    assert has_valid_check_digit("11010519491231002X")
    assert has_valid_check_digit("11010519491231002x")
    assert not has_valid_check_digit("110105194912310021")


def test_spans_do_not_overlap_and_the_longest_wins():
    text = "邮箱13800138000@163.com，住址：北京市朝阳区建国路1号13800138000"
    spans = find_phi(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert [s.label for s in spans] == ["EMAIL", "ADDRESS"]
    assert find_phi("") == []


def test_a_name_from_the_header_is_found_without_a_label():
    known = known_strings(["姓名：王建国，住院号：1234567"])
    assert known == {"王建国": "NAME", "1234567": "MRN"}
    text = "建议王建国戒烟，送检1234567，另12345678mg"
    assert [text[s.start : s.end] for s in find_phi(text, known)] == ["王建国", "1234567"]


@pytest.mark.parametrize(
    "text", ["江苏省南京市" + "路号" * 5000, "a" * 20_000, "姓名：" + "王" * 20_000]
)
def test_hostile_text_takes_no_longer_than_its_length(text):
    started = time.process_time()  # of this process alone, whatever else the machine does
    find_phi(text)
    assert time.process_time() - started < 2
