"""Word lists for names in Chinese text: surnames, characters of given names, words that are none.

Surnames: the common ones and those of the Hundred Family Surnames that are still borne. Words:
jieba's dictionary without its personal names, read once a process.
"""

import math
import re
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from medray.common.errors import ConfigError

HAN = "\u4e00-\u9fff"
SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程"
    "苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝"
    "龚邵万钱严覃武戴莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞柳"
    "甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳傅屈萧管柴蒙鲍华喻祁蒲房"
    "滕饶牟艾尤阳时穆农司卓古吉缪简车项连芦麦褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全佟应臧闵"
    "苟邬边卞姬师和仇栾隋商刁沙荣巫寇桑郎甄丛仲虞敖巩明佘池查麻苑迟邝官封谈匡鞠惠荆乐冀郁胥南"
    "班储原栗燕楚鄢劳谌奚皮粟冼蔺楼盘满闻位厉伊仝区郜海阚花权强帅屠豆朴盖练廉禹井祖漆巴丰支卿"
    "常赖阎洪国狄平计索宣晋相初门云容敬来扈晁芮都普阙浦戈伏鹿薄邸雍辜羊阿乌裘亓修邰赫杭况那宿鲜印逯"
    "隆茹诺战慕危玉银亢嵇公哈湛宾戎勾茅利於呼居揭干但尉冶斯元束檀衣信展阴昝智幸奉植衡富尧闭由"
)
# Surnames that are also function words, numbers or everyday words: they need better evidence.
LOOSE_SURNAMES = frozenset(
    "于向常曾何任方安从成全时高应和明连相都来由门位原初满支母查居那干但元信平公国利云强海花皮盘豆荣乐容计练封盖植富奉束"
    "衣战危有车路关包白黄温毛余边南阳官区楼项管党师水沙普麻"
)
# Those that stand before a noun or a verb as function words: 于家中, 向患者, 常感.
FUNCTION_WORDS = frozenset("于向和由从时应常曾都来尚查那")
COMPOUND = "欧阳|上官|司马|诸葛|东方|皇甫|尉迟|公孙|慕容|令狐|司徒|夏侯|司空|端木|呼延|南宫|长孙|宇文|轩辕|钟离|独孤|百里|闻人|澹台|公冶|太史|申屠|赫连|拓跋|完颜|纳兰|西门|万俟|鲜于|濮阳|淳于|单于|仲孙"  # noqa: E501
GIVEN = frozenset(
    "圆团桃点拾赐添招朵粒蜜奕弈喻铮祝霄霆霁茉莱菡葵薰芯苇萦蕴滢漪澈泱沄浅淞渝渲湛溢滔濠炀煊煦熹"
    "燊珣珞瓷皎睦祈祐禧穗竣笙筱箐絮绎绮耘聿臻岑屹岱峥巍庭弦徽忱恪惜懋挚攀斓昶昇晖晞暖曜朔柚栀桢"
    "梵棣棋楷榛樱橙歌殊毅敬廷襄权誉令兆任献钟扬原起乾鼎坦奉丰奇堂墨召锋封允培奏藻训沛渠米城殿洲"
    "援"
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红建文志国春梅海云峰雪飞鹏宇晨佳欣琳璐博浩然子涵思远雨桐"
    "嘉怡俊豪凤珍淑惠慧丹晶莹莉萍燕琴玲珠珊琪琼瑶瑞瑜瑾璇洁冰洪清源泽润涵淼淳渊滨河江湖汉波澜涌浦沛沐淇沁"
    "龙虎彪鹰鸿鹤鹃莺燕凯恺旋胜利斌彬武威毅坚健康宁安乐福禄寿喜庆祥瑞吉贵富财宝金银铜铁钢锋锐钧钰铭鑫"
    "德仁义礼智信忠孝良善贤廉勤俭恩惠慈爱心念忆思想怀恒悦怡愉恬恺悟慧敏聪颖睿哲理学文章书诗词画琴棋艺"
    "东南西北中天地日月星辰光明亮辉煌耀晖晓旭昊昌昆晟景晴晗曦曼春夏秋冬晨朝霞虹雯霖露霜雷震电云飘"
    "山岩岭峰岳嵩崇峻林森树木松柏柳杨桐梧楠桦榕枫梓桃李杏梅兰竹菊荷莲芙蓉芬芳芷若蕊蕾薇蓓菲萱茜茹莎苗英荣茂"
    "大小元亨亚一二三四五六九双全成功立业创新建设树栋梁材栩根生长发达兴旺盛隆昌永久恒远世代传继承宗祖家国民族邦"
    "卫保守护振奋进取跃腾翔飞翼羽翰凌云霄航舟帆济渡通达道路程征行健步先前锋军兵将帅相士官政治法律正公平和谐顺"
    "希望盼期有为可以自强奇伟宏广博大雄壮豪杰俊才彦硕士轩昂逸尘凡超越群卓尔绍绪维纲纪统经纬少青年华壮"
    "红橙黄绿青蓝紫白素丹彩绚丽美艳娇媚娴雅婉约柔情淑贞洁玉婷婵娟娥媛嫣妍姝姗妮娅婧妹娣姣嫦姬好如意"
    "君臣王侯公伯仲叔季子孙儿女男仙佛圣灵神龙凤麟麒骏骥驰骋驹骅泰山川玮珂珏珍珠璞琦琨琮琰瑄璋璟环玥珈瑗"
    "佑佐佩佟俐倩倪偲伊依仪伦伯侠修俞克凯冠冬凝刘则初力劲励勋化升卉卓南占友双叶可司同名向君吟含周哲唯善嘉"
    "坤培基堃城塬声夫奎奕好妙姿威娆宁宇宏宗官定宜宣宪容宽宾密寅富寒实察尚尧展岚川州巧帅帆常平幸广应延建弘"
    "彤彦彩彰影彻律御微忻怀思恒恩悦悠情惟愿慎懿成才承抒拓拥振挺捷援摇政教敦斐斯方施旭旻昀昕映昭是显晋晏景"
    "智暄月朋望朗木本杉来杨极果柯栋格梁梦棠楚榆欢欧歆正步毓民气水永汐汝沂沅治泉泓泳洁津洛流浚浩浪润淏深湘"
    "溪满漫潇潼澄澎澍激瀚灿炎炜炯炳烁烨烽焕焰焱煜照熙熠燃爽玄率珩理琛琬瑛瑜璧瓒甜生田申男界畅登皓益盈直真"
    "睿知石磊宸祎骁彧霏甯攸砚椿骞蘅祖祯祺禹禾秋科程穆空立端童竞笑笛笠第筠管箫粤精紫纯纳练细绍绣维缘羽翊翌翎翠耀肖育胜胤能腾臣致"
    "舒航良艺艾芊芝花芸苏苒苑苓茗茵荃草荔荟莘莫菁萌蒙蒲蓝蔓蔚薪虎虹行衍衡袁裕西言诚语诺谊谦谨谷豫象贝贞贤"
    "赛赞超越路轶轩辉辰迅迎运进连迪适逸遥道邦郁郎郡采里钊钦铃银锋锦镇镕镜长闻阳阿陆隽雁雄集雨青靖静韬韵韶顺"
    "颂颖风飒馨香骄高鲁鸣鹏麦默黎齐龄妞娃囡蛋柱栓锁牛狗毛丫芹芽菜香枝叶花根稳实满仓囤粮壮猛勐喜娘婆姐"
)  # fmt: skip
# Characters that hardly stand in a given name but often in a finding, a time or a function word.
NOT_IN_NAMES = frozenset(
    "疸疹斑痛咳喘肿瘤癌症病炎热烧血压糖脂胞尿便食欲痰汗吐泻晕厥胀闷悸疼痒麻溃疡肺肾胃肠肝脾胸腹腰背肢颅"
    "脑颈膝关节骨的了无未不否已曾再又均院科室诊疗药术后昨周时岁夜晚我本外当入出转复"
    "第氏睑髌腘疝痔胬癀瘘痂踝疣痈疽癣觉感因于诉述或并到在从由被予给服用查见体脉舌苔面色神者员某医师称遂就住个们这那您你他她它吗呢吧也都还"
    "很最太更比较且但只仅得着过把将让跟对床号率值测量检试验报告输液注射换缝切拔插管引流片剂颗粒滴支瓶次"
)
# Words of clinical text that start with a surname and could pass for one.
_MEDICAL_WORDS = """
黄疸 黄染 黄斑 黄体 黄芪 黄连 黄绿 黄痰 黄色 黄白 白带 白痰 白色 白蛋白 白细胞 白血病
白内障 白天 白癜风 高热 高烧 高龄 高危 高度 高压 高脂 高糖 高血压 高血糖 高血脂 高尿酸
高钾 高枕 高年资 高位 高级 安静 安好 安排 安全 安眠 安慰 康复 任何 何时 何种 何处
马上 毛发 毛糙 石膏 石淋 金属 龙胆 武断 方可 方才 方能 梅毒 霍乱 凌晨 莫名 焦虑 包块
包皮 包括 颜面 温度 温热 童年 季节 单独 单侧 单纯 单位 易感 易怒 易醒 易饥 舒适 陆续
严重 严格 夏季 江湖 雷同 万一 牛奶 牛皮癣 胡言 胡须 关节 关注 兰尾 宁静 余无 余可
余不 成年 成功 曲张 游走 辛辣 路过 路人 向上 向下 文化 文盲 向左 向右 苗条 盛怒 纪录
申请 申诉 章节 符合 尚可 尚好 尚无 段落 常规 叶酸 田间 金黄 时有 程度 连续 曾有 曾行
曾在 曾因 曾于 曾服 曾用 付费 何故 谢绝 许可 顾虑 甘露醇 安返 时伴 应行 应予 全麻
全身 成人 平卧 平车 平素 车祸 原发 初步 明显 明确 明日 和谐 支架 元素 相关 管床 管腔
管路 古稀 强直 麻木 麻醉 皮肤 皮疹 门诊 边界 云雾 普通 普食 计划 盘状 来院 来诊 来我
都有 都是 海绵 花斑 由于 由家 宿醉 居家 干咳 干啰 路上 南侧 阳性 阴性 党员 师傅 老师
衣物 华法 阿莫 阿司 阿托 阿卡 阿奇 阿替 阿昔 阿片 阿尔 阿糖 艾司 艾普 艾地 艾滋 万古
左氧 左旋 左心 左室 左肺 罗红 罗哌 利伐 利多 利尿 利福 利奈 雷贝 雷尼 雷米 雷公 兰索
兰地 普萘 普瑞 普罗 普鲁 乌司 乌拉 乌苏 索拉 索他 依诺 依那 依达 依托 卡马 卡托 卡维
卡铂 吉非 吉西 顺铂 多西 多巴 多索 司来 司坦 司他 司美 厄贝 白芍 白术 白介 白及 黄芩
黄柏 黄精 石斛 石菖 石决 麦冬 麦粒 麦氏 茅根 车前 甘草 甘油 甘精 葛根 金钱 金银 柴胡
桑叶 张力 张口 张目 舒巴坦 巴坦 伏沙明 伏立康 银杏叶 季德胜 霍奇金 何杰金 单克隆 多克隆
柯萨奇 韦格纳 雷诺 鲍曼 鲍狄 米诺 阿米卡 林可 白蔻仁 劳逸 窦道 窦房 戴镜 易消化 易继发
高维生 高蛋白 高纤维 盛夏 艾叶 潘生丁 米舍尔 斯特奇 韦伯 巴宾斯 康复期 祁州 应详细 房有
卫生 海洛因 毛呈 石榴 时节 金葡菌 王不留 徐长卿 何首乌 胡黄连 白头翁 刘寄奴 麻风 粟米
干骺 黎明 房颤 房扑 房早 成骨 焦痂 宣肺 甘遂 甘松 万艾可 安慰剂 高渗 高敏 高通量
安宫牛 史密斯 麦角 莫西沙 莫沙必 司坦唑 苏木 苏合香 苏子 苏叶 钟乳 石脂 龙骨 龙胆草
马齿 马尾 马兜铃 马来酸 马蹄 熊胆 熊去氧 牛磺 田七 白果 白薇 白前 白芷 方剂 金匮 包膜
包虫 连翘 危象 管型 管理 计量 时相 时程 元胡 应力 应激 成形 宫外 宫内 宫口 宫底 柏子
路易 盘尼 乐果 屈光 屈曲 屈氏 邵氏 梅尼 武侯 尤文 尤其 施行 童子 喻示 和中 和胃 宫旁
宫腔 宫颈 桑枝 杜仲 牛黄 牛膝 牛蒡 安宫 安乃 安体 安定 易善 单硝 单采 双侧 曲松 培南
康唑 韦林 高峰 玉米 明白 黄黄 胡椒 白凤 王老吉 乌梅 阴毛 司机 温煦 麦康凯 雷白 丁啉
阿拉明 齐明 米仁 麦芽 谢谢 蒲地蓝 易坦静 巴韦林 孟鲁司 丁桂儿 潘妥洛 利凡诺 周隆起 卫星
周发绀 术程 米帕明 丁三醇 莫特罗 索罗辛 赫赛汀 安维汀 康莱特 艾迪 诺和灵 诺和锐 诺和龙
诺和泰 康忻 美罗华 罗氏芬 罗氏 罗培南 施慧达 施捷因 施普善 易瑞沙 成纪 和素 欧兰宁
金水宝 金嗓子 安素 安罗替 安理申 安博维 安达唐 康士得 康柏西 艾司唑 艾素 艾恒 高良姜
谷精草 谷芽 关木通 海金沙 海螵蛸 钟乳石 龙葵 田基黄 马齿苋 马钱子 马勃 石决明 雷尼替
雷贝拉 雷米普 雷珠单 雷帕霉 柴葛 熊果酸 鲁米那 曲马多 曲美他 曲格列 曲妥珠 胡芦巴 郁金
郁李仁 常山 白英 白蔹 车前子 车前草 路路通 贝母 党参 丹参 巴戟天 祖师麻 柏子仁 桑白皮
桑寄生 侧柏叶 葛花 斯坦福 杜克 莫里森 劳伦 莫尔斯 莫罗 柯兴 库欣 麦康奈 道格拉 布雷登
陈皮 桂枝 桂圆 白豆蔻 白蒺藜 白花蛇 白鲜皮 阳陵泉 阴陵泉 石门 水道 商丘 商阳 曲池 曲骨
曲泉 温溜 关元 关冲 梁丘 梁门 支沟 支正 章门 华盖 窦律 窦缓 窦速 羊水 涂阳 涂阴 涂片
麻精 麻药 麻疹 麻痹 农商 农合 农保 雷伯 单先 华法林 普拉克 宾斯基 尼格氏 孔道 甘利欣
舒普深 门冬 阿米巴 高达 窦小 窦大 冷毛巾 胡萝卜 高原 马铃薯 蒙脱石 杨梅 盖章 齐全 车封
温清 温水 温盐 谈及 方代 那曲肝 应用 成对 明胶 布莱克 福莱 汉密尔 安德鲁 路易体 宫高
蓝光 银行卡 师承 权代 祝宝 那明 全子 高压氧 强阳性 强化 郎中 单续 普贝生 高丽参 陈旧 阴道
冷凝 白三烯 皮温 桑葚 花生 白蛉 金樱 杜绝 谈话 商保 高一
修正 叶毛 莫司谷 麻黄 阿维 范畴 管顺利 余亲 全髋 全膝 蓝蛋白
高二 高三 马应龙 曲缬 余同 明天 华佗 敬礼 白班 阳白 温阳 温中 温补
温肾 平车 余正 余同 呼吸 阿米
霍夫曼 托马斯 罗索利 尤以 温馨 车清点 楼栋 满格 焦栀子 焦山楂 焦三仙 焦神曲
焦麦芽 芦根 阿达帕 艾利斯 置管 凌心 班同学 班级
马林 戴冠 敬上 莫征 丰隆 单中心 宫深 阿姨 车备 车内 平软
"""
MEDICAL_WORDS = frozenset(_MEDICAL_WORDS.split())
# Ends of international drug names as they are written in Chinese, after the WHO's stems (-setron,
# -fentanil, -relin, -tinib, -mab, -sartan, -pril, -olol, -dipine, -statin, -prazole, -gliptin,
# -gliflozin, -cillin, -floxacin, -mycin, -caine, -vir, -fungin, -conazole): 帕洛诺司琼, 舒芬太尼.
DRUG_STEM = re.compile(
    "司琼|太尼|[舍普那曲丙亮戈]瑞林|替尼|单抗|沙坦|普利|洛尔|地平|伐他汀|他汀|拉唑|列汀|格列[净美吡齐喹奈]|"
    "[苄哌莫唑洛匹卡]西林|沙星|霉素|米星|卡因|[诺那替更昔洛伐瑞托]韦(?![\u4e00-\u9fff]{0,1}(?:主任|医))|芬净|康唑|"
    "膦酸|双胍|昔布|洛芬|曲坦|西泮|唑仑|巴比妥|奈德|米松|可松|替康|紫杉|铂|沙班|肝素|洛替|曲普|"
    "胰岛素|[他罗美]莫司|莫司(?=[、，,谷浓联片胶])|葡萄糖|氯化[钠钾]|碳酸|激酶|免疫球|球蛋白"
)
FOLLOWERS = frozenset(
    "遵嘱男女因诉称说讲系是的在于为及和与或等已将未曾由到来去住签述示行予把被给之至从也又均能可要其即未无有"
    "时再遂刚就便正带帮背抱让叫请问审写约掐跟陪收接看听想取交补阅而父母"
)


def words() -> frozenset[str]:
    """Words of two and three characters that are no personal name, after jieba's dictionary."""
    return _dictionary().words


def is_given(character: str) -> bool:
    """Whether a character is usual in given names, or hardly stands in anything else: 翀, 燚."""
    return character in GIVEN or character not in _dictionary().common


def is_nameish(character: str) -> bool:
    """Whether a character stands in names more than in most words: 艳, 涛, not 平."""
    return character in _dictionary().nameish or character not in _dictionary().common


def name_log_odds(surname: str, given: str) -> float:
    """How much likelier these characters are in a name than in other words, in nats: the sum over
    the characters, each taken by itself. A compound surname counts as a common one."""
    odds = _dictionary()
    before = odds.surname.get(surname, 0.0) if len(surname) == 1 else COMPOUND_LOG_ODDS
    return before + sum(odds.given.get(character, 0.0) for character in given)


def is_given_pair(given: str) -> bool:
    """Whether two characters are a given name of several persons: 建国, though a word too."""
    return given in _dictionary().given_pairs


COMPOUND_LOG_ODDS = 5.0
"""Source: not given; that of 孙 and 王 in jieba's dictionary."""


MIN_NAME_SHARE = 0.14
"""Of a character's uses, those in personal names. Source: not given; 2 % of 强's and 洋's are, 14 %
of 娟's and 16 % of 健's, 96 % of 鹏's."""
MIN_USES = 300
"""Uses of a character in jieba's dictionary (60 million characters in all) from which on it is no
rare one. Source: not given; below it lie characters that even a newspaper hardly prints."""


class _Dictionary(NamedTuple):
    words: frozenset[str]
    common: frozenset[str]
    """Characters of words that are not rare."""
    nameish: frozenset[str]
    """Characters of which many uses are in names."""
    surname: dict[str, float]
    """Character → log odds of a surname against any place in a word, in nats."""
    given: dict[str, float]
    """The same of a given name's character."""
    given_pairs: frozenset[str]
    """Given names of two characters that several surnames have."""


@cache
def _dictionary() -> _Dictionary:
    spec = find_spec("jieba")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("jieba is not installed; its dictionary tells names from words")
    found: set[str] = set(MEDICAL_WORDS)
    uses: Counter[str] = Counter()
    given: Counter[str] = Counter()
    surnames: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    path = Path(spec.submodule_search_locations[0]) / "dict.txt"
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            word, count, tag = line.split()
            if len(word) in (2, 3) and not tag.startswith("nr") and int(count) >= 5:
                found.add(word)
            if tag.startswith("nr") and len(word) == 3 and word[0] in SURNAMES:
                pairs[word[1:]] += GIVEN.issuperset(word[1:])
            # The first of three characters of a name is a surname.
            for place, character in enumerate(word):
                if not tag.startswith("nr"):
                    uses[character] += int(count)
                elif place or len(word) < 3:
                    given[character] += int(count)
                else:
                    surnames[character] += int(count)
    return _Dictionary(
        frozenset(found),
        frozenset(c for c, n in uses.items() if n >= MIN_USES),
        frozenset(c for c, n in given.items() if n >= MIN_NAME_SHARE * (n + uses[c])),
        _log_odds(surnames, uses),
        _log_odds(given, uses),
        frozenset(pair for pair, n in pairs.items() if n >= 2),
    )


def _log_odds(of: Counter[str], uses: Counter[str]) -> dict[str, float]:
    """Smoothed, so that a character seen a few times is near 0."""
    total, all_uses = of.total(), uses.total()
    return {
        c: math.log((of[c] + 2) / total) - math.log((uses[c] + 2 * all_uses / total) / all_uses)
        for c in {*of, *uses}
    }


def is_surname(text: str, at: int) -> int:
    """Length of the surname at text[at:], 0 if none stands there."""
    if _COMPOUND.match(text, at):
        return 2
    return 1 if text[at : at + 1] in _SURNAMES else 0


_COMPOUND = re.compile(COMPOUND)
_SURNAMES = frozenset(SURNAMES)
