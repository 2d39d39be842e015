"""Personal names in English clinical notes. In: text. Out: spans of names and whether the person
is staff.

A name is taken where something vouches for it: a title (Dr., Mrs.), a degree after it (M.D., RN),
a field label, a relation (her son), or a verb that takes a person. Eponyms (Foley, Babinski) have
none of these. Source: not given; the forms are those of transcribed notes and of i2b2's classes.
"""

import re
from collections.abc import Iterator

from medray.privacy.lexicon_en import NO_NAMES_EN

_TOKEN = r"(?:(?:van|von|de|der|la|el|al|bin|di|du)[- ])?(?:[A-Z]['’])?(?:Mc|Mac|De|La|Le|Van|O['’])?[A-Z][a-z'’]+(?:-[A-Z][a-z]+)*(?![A-Za-z])"  # noqa: E501
_UPPER = r"(?=[A-Z'’\-]*[AEIOUY])[A-Z][A-Z'’\-]{2,}"  # SNF is nobody
_INITIAL = r"[A-W]\."  # Dr. X is nobody
_NOT = (
    r"(?!(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?,? \d)"
    r"(?!(?:The|This|That|She|He|Her|His|They|We|It|No|Not|Was|Is|Has|Had|And|Or|For|With|On|At|In"
    r"|To|From|Of|Who|"
    r"Date|Dates|Sex|Age|MRN|DOB|Phone|Tel|Fax|Patient|Doctor|Dr|Mr|Mrs|Ms|Name|Admission|"
    r"Discharge|Medical|Record|"
    r"History|None|Unknown|Denies|Reports|States|Chief|Present|Past|Social|Family|Review|Physical|"
    r"Assessment|Plan|"
    r"Attending|Surgeon|Assistant|Consultant|Anesthesia|General|Procedure|Preoperative|"
    r"Postoperative|Hospital|Room|"
    r"XYZ|ABCD?|XXX+|Alive|Deceased|Healthy|Diabetes|Hypertension|Cancer|Also|There|Primary|"
    r"Emergency|Department|"
    r"Service|Clinic|"
    r"Janu|Febr|March\b|April\b|August\b|September|October|November|December|Monday|Tuesday|"
    r"Wednesday|Thursday|Friday|"
    r"Saturday|Sunday|Will be|May be|Endotracheal|Local|Spinal|Regional|Referring|Signed|"
    r"Electronically|Physician)\b)"
)
_NAME = (
    rf"{_NOT}(?:{_TOKEN}(?:,\s{_NOT}{_TOKEN})(?:\s{_INITIAL})?|{_TOKEN}(?:\s{_INITIAL}|\s"
    rf"(?:{_NOT}{_TOKEN})){{0,3}}"
    rf"|(?:{_INITIAL}\s?){{1,2}}{_TOKEN})"
)
_NAME_UPPER = rf"{_NOT}(?:{_UPPER}(?:,?\s{_UPPER}){{0,2}}(?:\s[A-Z]\.?(?=\s|$))?)"
_TITLE = r"\b(?:Drs?|DR|Doctor|Mr|Mrs|Ms|MR|MRS|MS|Miss|Mx|Prof|Professor|Nurse|Sister|Rev)\.?\s"
_STAFF_TITLE = re.compile(r"\b(?:Dr|DR|Doctor|Prof|Nurse)")
_DEGREE = (
    r"(?=(?:,\s?|\s)(?:M\.?D\.?|D\.?O\.?|R\.?N\.?|PA-?C?|NP|CRNP|APRN|Ph\.?D\.?|D\.?P\.?M\.?|"
    r"DDS|FACS|MBBS|LPN|CNM|PharmD|DPT|PT|OTR?|MSW|LI?CSW|SLP|CCC-SLP|RDN?|RRT|CNA|CRNA|CNS|PsyD|"
    r"EMT(?:-P)?|BSN|MPH|MBA|CCM|CGC)(?![A-Za-z]))"
)
_PERSON_LABEL = (
    r"\b(?i:patient(?:[’']s)?(?: name)?|name|next of kin|emergency contact|contact|guardian|re|"
    r"regarding|"
    r"spouse|informant|pt|subscriber|member|caller|attn) ?[:=_] *_*"
)
_STAFF_LABEL = (
    r"\b(?i:attending(?: physician)?|surgeons?|assistants?|(?:first |co-?)?assistant surgeon|"
    r"consultants?|consulting physician|referring(?: physician| md)?|"
    r"dictated by|transcribed by|signed by|electronically signed by|reviewed by|seen by|pcp|"
    r"primary care physician|physician|provider|resident|"
    r"anesthesiologist|anesthetist|radiologist|pathologist|interpreted by|read by|author|nurse|"
    r"therapist|presenter|discussant|operator|fellow|scrub(?: nurse| tech)?|circulator|"
    r"cardiologist|performed by|cosigned by|requested by|ordered by|verified by|examiner)"
)
_KIN = (
    r"\b(?i:wife|dtr|gf|bf|husband|spouse|son|daughter|brother|sister|mother|father|partner|friend|niece|"
    r"nephew|aunt|uncle|grandson|"
    r"granddaughter|grandmother|grandfather|neighbor|roommate|girlfriend|boyfriend|fianc[eé]e?|"
    r"caregiver|guardian|cousin|"
    r"interpreter|stepfather|stepmother|witness|counsel[l]?or|chaplain|dietitian|pharmacist|"
    r"passenger|driver|pedestrian|bystander|case manager|social worker|landlord|coworker|aide|"
    r"sitter|midwife|fob|officer|mom|dad|grandma|grandpa|proband|hcp|"
    r"poa|proxy|kin|contact|family|parents?|staff|teacher),?\s(?:named\s|is\s|[(])?"
)
_VERB = (
    r"\b(?:I (?:saw|met|examined|evaluated)|[Ss]poke (?:with|to)|[Dd]iscussed with|[Cc]ontacted|"
    r"[Pp]aged|[Cc]alled|[Nn]otified|named|[Rr]eferred (?:by|to)|[Cc]are of|[Ss]igned by|"
    r"[Ww]itnessed by|[Aa]ttended by|[Ss]elf as|"
    r"[Aa]ccompanied by|[Aa]mended per|[Pp]er(?= [A-Z][a-z]+,? [A-Z])|[Ss]upervised by|"
    r"[Hh]anded off to|[Rr]elieved by|[Rr]eported (?:by|to)|[Cc]overed by|[Ee]scorted by|"
    r"[Ss]igned electronically by|[Ss]igned,?|[Tt]eacher|[Cc]aller|[Aa]ttn:?|"
    r"[Uu]nder(?= [A-Z][a-z]+,? [A-Z])|"
    r"[Pp]t(?= [A-Z][a-z]+,? [A-Z][a-z])|[Bb]rought (?:in )?by|"
    r"(?<![A-Za-z] )(?:RN|MD|NP|PA)(?= [A-Z][a-z]+,? [A-Z])|"
    r"[Ii]nformed|[Ee]mailed|[Tt]exted|[Mm]et with|[Ll]ives with|"
    r"[Tt]hank you for (?:referring|asking me to see))\s"
)
_AFTER = (
    r"(?=(?:,? (?:is|was) an? (?:very |pleasant |otherwise |well-?\w* |delightful |\w+ )?\d)|,? "
    r"(?:is )?an? \d{1,3}[- ]year|"
    r",? (?:a|an) \d{1,3} ?y|(?: [\[(][A-Z]{0,4}-?\d)|(?: [\[(]?(?:MRN?(?![-N])|MR#|DOB))|"
    r", (?:age )?\d{1,3}[- ]?y| (?:presented|presents|was seen|was admitted"
    r"|returns|returned|lives|resides|states|denies|reports|underwent|feels|felt|wants|wanted|looks|"
    r"complains|tolerated|called|calls|arrived|slept|refused|declined|agrees|agreed|requests)\b)"
)
_AFTER_VERB = re.compile(rf"{_VERB}(?P<name>{_NAME})")
_AFTER_KIN = re.compile(rf"{_KIN}(?P<name>{_NAME})")
_BEFORE_SIGN = re.compile(rf"(?:^|(?<=[.\n:] )|(?<=\n))(?=\S+ [A-Z])(?P<name>{_NAME}){_AFTER}")
_NEXT = re.compile(rf"(?:, | and | & |; ?|/)(?P<name>{_NAME})(?=[,;.)\n]| and |$)")
_PATTERNS: tuple[tuple[re.Pattern[str], bool | None], ...] = (
    (re.compile(rf"{_TITLE}(?P<name>{_NAME}|{_NAME_UPPER})"), None),
    (re.compile(rf"(?P<name>{_NAME}|{_NAME_UPPER}){_DEGREE}"), True),
    (re.compile(rf"{_PERSON_LABEL}(?:{_TITLE})?(?P<name>{_NAME}|{_NAME_UPPER})"), False),
    (re.compile(rf"{_STAFF_LABEL} ?(?:[:=]|\b) *(?:{_TITLE})?(?P<name>{_NAME})"), True),
    (re.compile(rf"{_STAFF_LABEL} ?[:=] *(?:{_TITLE})?(?P<name>{_NAME_UPPER})"), True),
    (re.compile(rf"\b(?:MD|DO|RN|NP|PA|PharmD): (?P<name>{_NAME})"), True),
    (_AFTER_KIN, False),
    (_AFTER_VERB, False),
    (_BEFORE_SIGN, False),
)  # fmt: skip


def find_names_en(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yields (start, end, is_doctor) of every name, in no order and with overlaps."""
    for pattern, is_staff in _PATTERNS:
        for match in pattern.finditer(text):
            start, end = match.span("name")
            if pattern is _AFTER_VERB and match["name"] in NO_NAMES_EN:
                continue  # discussed with Cardiology
            if is_staff and match["name"].title() in NO_NAMES_EN:
                continue  # Triage RN: ...
            if pattern in (_AFTER_KIN, _BEFORE_SIGN) and _first_word(match["name"]) in NO_NAMES_EN:
                continue  # family Medicine; Medicare MRN
            if is_staff is None and match.group().startswith("MR") and text[end : end + 1] == ":":
                continue  # moderate MR. Recs: ...
            is_titled = is_staff is None and _STAFF_TITLE.match(match.group())
            yield start, end, bool(is_titled or is_staff)
            if is_staff or pattern is _AFTER_KIN:
                for name in _listed(text, end):
                    yield *name, bool(is_staff)


def _listed(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Names that follow a found one in a list: Assistants: Ann Hill, Joe Wood."""
    while (match := _NEXT.match(text, at)) and _first_word(match["name"]) not in NO_NAMES_EN:
        yield match.span("name")
        at = match.end()


def _first_word(name: str) -> str:
    return re.split(r"[\s,]", name, maxsplit=1)[0]
