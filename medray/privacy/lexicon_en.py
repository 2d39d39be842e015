"""Word lists for names in English text: given names, surnames, capitalised words that are none.

Source: the names of Faker's locales, and a few common ones that it lacks; the words are those that
clinical notes write with a capital.
"""

from functools import lru_cache
from importlib import import_module

_LOCALES = """
en_US en_GB en_IE en_IN en_PK en_KE en_NG yo_NG ig_NG es_MX es_ES fr_FR de_DE it_IT nl_NL sv_SE
pl_PL pt_BR tr_TR vi_VN
"""
_OTHER_GIVEN = """
Will Akira Hiroshi Kenji Yuki Haruto Sakura Wei Ming Min Jing Ying Hui Xin Yu Hyun Duc Thanh Kofi
Kwame Oluwaseun Dmitri
"""
_OTHER_SURNAMES = """
Ivanov Petrov Kowalski Nowak Mensah Tanaka Yamamoto Suzuki Sato Watanabe Wang Zhang Li Chen Liu Lin
Wu Huang Zhou Park Choi Tran Pham Nguyen
"""
_WORDS = """
Hospital Clinic Center Centre Medical Department Unit Ward Room Floor Street Avenue Road Drive Lane
County State City University College School Church Service Services Office Memorial General Regional
Internal Infectious Interventional Physical Occupational Speech Respiratory Social Case Primary
Intensive Critical Emergency Urgent Acute Chronic Home Health Care Day Night Weekend Monday Tuesday
Wednesday Thursday Friday Saturday Sunday January February March May July August September October
November December Medicine Surgery Cardiology Neurology Oncology Hematology Nephrology Urology
Pulmonary Pulmonology Gastroenterology Endocrinology Rheumatology Dermatology Psychiatry Radiology
Pathology Orthopedics Orthopedic Ophthalmology Otolaryngology Anesthesia Anesthesiology Pediatrics
Obstetrics Gynecology Neurosurgery Plastics Trauma Rehabilitation Rehab Pharmacy Pharmacist Nursing
Nutrition Therapy Therapist Lab Laboratory Labs Team Staff Nurse Doctor Patient Mother Father Wife
Husband Son Daughter Brother Sister Family Families Grandmother Grandfather Grandson Granddaughter
Boyfriend Girlfriend Partner Neighbor Friend Teacher Caller Spouse Uncle Aunt Niece Nephew Cousin
Fiance Fiancee Guardian Roommate Landlord Coworker Stepfather Stepmother Mom Dad Grandma Grandpa
Counselor Principal Coach Parents Parent Subscriber Member Witness Ph Dx Rx Hx Tx
Gaucher Fabry Disease Diseases Syndrome Sign Test Score Scale Index
Criteria Catheter Tube Valve Stent Stain Procedure Repair Maneuver Fracture Tumor Cancer Lymphoma
Class Stage Grade Type Group Coma Pressure Rate Count Level Chest Blood Heart Lung Liver Kidney
Brain Spine Abdomen Pelvis Head Neck Eyes Ears Nose Throat Skin Left Right Bilateral Upper Lower
Anterior Posterior Positive Negative Normal Abnormal Stable New Old Final Initial Total Status Post
Plan Assessment Impression History Exam Examination Findings Diagnosis Allergies Medications Vital
Signs Past Present Review Systems Chief Complaint Admission Discharge Date Time Name Age Sex Male
Female Hispanic Asian African American Caucasian English Spanish Chinese French German Russian
Medicare Medicaid Medicaire Insurance Blue Cross Shield Veterans Army Navy Air Force Bengal Virus
Vaccine Protocol Study Trial Ringer Lactated Saline Today Yesterday Tomorrow Continue
Anesthesiologist Surgeon Resident Intern Fellow Physician Assistant Consultant Cardiologist
Neurologist Radiologist Pathologist Technician Technologist Interpreter Circulator Coordinator
Manager Supervisor Dietitian Chaplain Hospitalist Attending Provider Signed Dear Sincerely Regards
Thanks Thank Dr Drs Mr Mrs Ms Miss Prof Discussed Reviewed Per Please Will Would Should Could Can
An One Two Three Four Five Six Point Drain Clamp Clamps Retractor Forceps Suture
Have Has Had Is Was Were Are Be Been Bard However Therefore Also Diet Nursery The This That These
Those There Then When Where What Which Who How Why If And Or But Not No Yes On In At By For From To
With Of As After Before During Since Until Upon Started Given Seen Noted Triage Ref Fr Drains
Referral Transfer Intake Handoff Pager Ext Passenger Driver
Called Pt Bystander Visitor We Contact Comparison Registration Claim
Copay Receipt Telephone Midwife Paged Accepting Receiving Sending Onc Roomed Author Cosigned
"""
NO_NAMES_EN = frozenset(_WORDS.split())


@lru_cache(maxsize=1)
def given_names() -> frozenset[str]:
    """Given names, plain letters only."""
    return _names("first_names", _OTHER_GIVEN)


@lru_cache(maxsize=1)
def surnames() -> frozenset[str]:
    """Surnames, plain letters only."""
    return _names("last_names", _OTHER_SURNAMES)


def _names(kind: str, others: str) -> frozenset[str]:
    found: set[str] = set()
    for locale in _LOCALES.split():
        provider = import_module(f"faker.providers.person.{locale}").Provider
        for attribute in vars(provider):
            if attribute.startswith(kind):
                found.update(getattr(provider, attribute))
    plain = {name for name in found if name.isascii() and name.isalpha() and len(name) > 2}
    return frozenset(plain.union(others.split()))  # An is a name, but not in a note
