"""Writes one visit's record from a patient.

In: `Patient`, a `Sampler`. Out: the sections, identifier spans, log-probability of the clinical
text, and the `Evidence` that the sections before the diagnosis show. The header (患者信息) holds
identifiers only and is not counted. A section may be missing; if 现病史 is, 主诉 names every
symptom, so that the symptoms shown are always all or none and the posterior stays exact.
Source: issue 2, sample hospital. Section headings as in Chinese records.
"""

import math
from typing import Any, NamedTuple

from medray.sample import phrases
from medray.sample.bayes import Evidence
from medray.sample.identity import Identity, draw_identity, write_date
from medray.sample.model import UNIT_RANGE, UNITS, Model
from medray.sample.operation import write_operation
from medray.sample.patient import Patient
from medray.sample.sampler import Sampler
from medray.sample.text import Speller, TextBuilder

OPTIONAL = ("主诉", "现病史", "既往史", "体格检查", "辅助检查", "治疗", "拟诊讨论")
INLINE_PHI = 0.3
"""Share of records with identifiers inside the history. Source: not given; chosen so that every
class occurs inline some hundred times in 2 000 records."""


class Written(NamedTuple):
    """A record and its truth."""

    sections: list[dict[str, str]]
    phi: list[dict[str, Any]]
    nll_nats: float
    evidence: Evidence
    identity: Identity


class RecordWriter:
    """Writes one record; holds what several sections share."""

    def __init__(
        self,
        model: Model,
        patient: Patient,
        sampler: Sampler,
        speller: Speller,
        hospital: str,
        missing_rate: float,
        routine_rate: float = 1.0,
    ) -> None:
        self.model = model
        self.patient = patient
        self.disease = patient.info(model)
        self.sampler = sampler
        self.speller = speller
        self.missing_rate = missing_rate
        self.routine_rate = routine_rate
        self.evidence = Evidence()
        self.shown: list[str] = []
        """Findings written so far, as worded: the discussion repeats some of them."""
        self.identity = draw_identity(sampler.free, patient.age, patient.sex, hospital)
        self.wordings: list[str] = []
        """Symptoms as worded, in the order they are told."""
        self.first_symptom = ""

    def write(self) -> Written:
        """All sections in their fixed order."""
        sampler = self.sampler
        sampler.count(float(self.model.prior_D[self.patient.disease]))
        present = {h for h in OPTIONAL if not sampler.flip(self.missing_rate)}
        makers = {
            "患者信息": self.header,
            "主诉": lambda b: self.complaint(b, full="现病史" not in present),
            "现病史": self.present_illness,
            "既往史": self.past_history,
            "体格检查": self.examination,
            "辅助检查": self.tests,
            "诊断": lambda b: b.exact(phrases.diagnosis(self.disease)),
            "治疗": self.treatment,
            "拟诊讨论": self.discussion,
            "手术记录": lambda b: write_operation(b, self.disease.procedure),
        }
        if {"主诉", "现病史"} & present:
            self.draw_wordings()
        sections, phi = [], []
        for heading, make in makers.items():
            if heading in OPTIONAL and heading not in present:
                continue
            if heading == "手术记录" and not self.operated():
                continue
            builder = TextBuilder(sampler, self.speller)
            make(builder)
            for span in builder.spans:
                phi.append(
                    {
                        "section": len(sections),
                        "start": span.start,
                        "end": span.end,
                        "class": span.phi_class,
                    }
                )
            date = self.identity.admitted.isoformat()
            sections.append({"heading": heading, "date": date, "text": builder.text})
        return Written(sections, phi, sampler.nll_nats, self.evidence, self.identity)

    def operated(self) -> bool:
        """Whether there was an operation: half of those whose disease can need one."""
        return self.disease.procedure is not None and self.sampler.flip(0.5)

    def header(self, b: TextBuilder) -> None:
        """患者信息: identifiers, uncounted."""
        who, patient = self.identity, self.patient
        b.exact("姓名：").phi("NAME", who.name)
        b.exact(f"，性别：{patient.sex_text}，年龄：{patient.age}岁，身份证号：")
        b.phi("ID", who.resident_id).exact("，联系电话：").phi("PHONE", who.phone)
        b.exact("，住址：").phi("ADDRESS", who.address).exact("，住院号：").phi("MRN", who.mrn)
        b.exact("，入院日期：").phi("DATE", write_date(self.sampler.free, who.admitted))
        b.exact("，医院：").phi("HOSPITAL", who.hospital)
        b.exact("，医师签名：").phi("DOCTOR", who.doctor).exact("。")

    def draw_wordings(self) -> None:
        """Counts symptoms and duration, fixes each symptom's wording and their order."""
        model, patient, sampler = self.model, self.patient, self.sampler
        d = patient.disease
        sampler.count(float(model.symptoms.log_p_D(patient.sex, patient.symptoms)[d]))
        sampler.count(float(model.unit_UD[patient.unit, d]))
        low, high = UNIT_RANGE[UNITS[patient.unit]]
        sampler.count(-math.log(high - low + 1))
        self.evidence.symptoms = patient.symptoms
        self.evidence.unit = patient.unit
        ordered = sampler.arrange(patient.symptoms, len(patient.symptoms))
        names = model.symptoms.names
        if ordered:
            self.first_symptom = names[ordered[0]]
        self.wordings = [sampler.choice(model.knowledge.symptoms[names[i]]) for i in ordered]
        self.shown += self.wordings

    def complaint(self, b: TextBuilder, *, full: bool) -> None:
        """主诉: one or two symptoms and the duration; all of them if nothing else tells."""
        if full:
            b.add(self.opening())
        names = self.wordings if full else self.wordings[: self.num_chief()]
        b.add(phrases.complaint(self.sampler, names, self.patient.duration))

    def num_chief(self) -> int:
        """How many symptoms the complaint names: those that come first in the illness."""
        if len(self.wordings) < 2:
            return len(self.wordings)
        return self.sampler.choice((1, 2))

    def opening(self) -> str:
        """Age and sex, either of which may have been left out."""
        sampler, patient, model = self.sampler, self.patient, self.model
        sex = age = None
        if not sampler.flip(self.missing_rate):
            sex = self.evidence.sex = patient.sex
            sampler.count(float(model.sex_SD[sex, patient.disease]))
        if not sampler.flip(self.missing_rate):
            age = self.evidence.age = patient.age
            sampler.count(float(model.ages.log_p_D(0, age)[patient.disease]))
        return phrases.opening(sampler, None if sex is None else patient.sex_text, age)

    def present_illness(self, b: TextBuilder) -> None:
        """现病史: onset, symptoms, pertinent negatives, course."""
        sampler = self.sampler
        b.add(self.opening())
        b.add(phrases.onset(sampler, self.wordings, self.patient.duration))
        if sampler.flip(self.routine_rate):
            b.add(phrases.denial(sampler, self.negatives()))
        self.inline_phi(b)
        if sampler.flip(self.routine_rate):
            b.add(sampler.choice(phrases.COURSES))

    def negatives(self) -> list[str]:
        """Two absent symptoms of the first symptom's body system. Which ones depends on the
        symptoms present and on chance only, so they tell nothing beyond what is shown anyway."""
        model, patient, sampler = self.model, self.patient, self.sampler
        names = model.symptoms.names
        system = "general"
        if self.first_symptom:
            groups = model.knowledge.systems.items()
            system = next(s for s, group in groups if self.first_symptom in group)
        present = {names[i] for i in patient.symptoms}
        other_sex = model.knowledge.female_only | model.knowledge.male_only
        absent = [
            s for s in model.knowledge.systems[system] if s not in present and s not in other_sex
        ]
        return sampler.arrange(absent, min(2, len(absent)))

    def inline_phi(self, b: TextBuilder) -> None:
        """Sometimes a relative, or an earlier visit elsewhere: identifiers amid clinical text."""
        free, who = self.sampler.free, self.identity
        if free.random() < INLINE_PHI:
            when = write_date(free, who.earlier)
            b.phi("DATE", when).exact("曾就诊于").phi("HOSPITAL", who.earlier_hospital)
            b.exact("。")
        if free.random() < INLINE_PHI:
            b.exact("家属").phi("NAME", who.relative)
            if free.random() < 0.5:
                phone = f"1{free.choice('3578')}{free.randrange(10**9):09d}"
                b.exact("（电话").phi("PHONE", phone).exact("）")
            b.exact("陪同入院。")

    def past_history(self, b: TextBuilder) -> None:
        """既往史: items in any order, allergies."""
        model, patient, sampler = self.model, self.patient, self.sampler
        d = patient.disease
        sampler.count(float(model.history.log_p_D(patient.sex, patient.history)[d]))
        self.evidence.history = patient.history
        ordered = sampler.arrange(patient.history, len(patient.history))
        names = model.history.names
        items = [sampler.choice(model.knowledge.history[names[i]]) for i in ordered]
        self.shown += items
        b.add(phrases.past(sampler, items, allergies=sampler.flip(self.routine_rate)))

    def examination(self, b: TextBuilder) -> None:
        """体格检查: vital signs, any of which may be missing, and signs."""
        model, patient, sampler = self.model, self.patient, self.sampler
        d = patient.disease
        values: dict[str, str] = {}
        recorded = sampler.flip(self.routine_rate)
        for i, item in enumerate(model.vitals.items if recorded else ()):
            if item.name != "DBP" and sampler.flip(self.missing_rate):
                continue
            if item.name == "DBP" and "SBP" not in values:  # one blood pressure, two numbers
                continue
            self.evidence.vitals[i] = patient.vitals[i]
            sampler.count(float(model.vitals.log_p_D(i, patient.vitals[i])[d]))
            values[item.name] = item.write(patient.vitals[i])
        sampler.count(float(model.signs.log_p_D(patient.sex, patient.signs)[d]))
        self.evidence.signs = patient.signs
        ordered = sampler.arrange(patient.signs, len(patient.signs))
        names = model.signs.names
        signs = [sampler.choice(model.knowledge.signs[names[i]]) for i in ordered]
        self.shown += signs
        b.add(phrases.vitals(sampler, values)).add(phrases.signs(sampler, signs))

    def tests(self, b: TextBuilder) -> None:
        """辅助检查: the tests that were made, in any order, and one examination."""
        model, patient, sampler = self.model, self.patient, self.sampler
        d = patient.disease
        sampler.count(float(model.orders.log_p_D(patient.sex, list(patient.labs))[d]))
        self.evidence.labs = patient.labs
        results = []
        for i in sampler.arrange(list(patient.labs), len(patient.labs)):
            item, k = model.labs.items[i], patient.labs[i]
            sampler.count(float(model.labs.log_p_D(i, k)[d]))
            results.append(item.report(k))
        imaging = ""
        if not sampler.flip(phrases.IMAGING_MISSING):
            sampler.count(float(model.imaging.log_p_SOD[patient.sex, patient.imaging, d]))
            self.evidence.imaging = patient.imaging
            imaging = model.imaging.names[patient.imaging]
            self.shown.append(imaging)
        self.shown += results
        b.add(phrases.tests(sampler, results, imaging))

    def treatment(self, b: TextBuilder) -> None:
        """治疗: first or second line, dose (may be missing), diet, control."""
        sampler = self.sampler
        drug, dose = self.disease.first if sampler.flip(0.7) else self.disease.second
        dose = "" if sampler.flip(self.missing_rate) else dose
        b.exact(phrases.treatment(sampler, self.disease, drug, dose))

    def discussion(self, b: TextBuilder) -> None:
        """拟诊讨论: repeats findings that were shown, names the diagnosis and an alternative."""
        sampler, disease = self.sampler, self.disease
        repeated = sampler.arrange(self.shown, min(3, len(self.shown)))
        others = [
            d.name
            for d in self.model.knowledge.of_department(disease.department)
            if d.name != disease.name
        ]
        b.add(phrases.evidence(sampler, repeated))
        b.exact(phrases.conclusion(sampler, disease.name, sampler.choice(others)))
