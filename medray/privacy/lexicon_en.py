"""Word lists for names in English text: given names, surnames, capitalised words that are none.

Source: the commonest names of the US census of 1990, written down by hand, with common ones of
other languages; the words are those that clinical notes write with a capital.
"""

_GIVEN = """
James John Robert Michael William David Richard Charles Joseph Thomas Christopher Daniel Paul Mark
Donald George Kenneth Steven Edward Brian Ronald Anthony Kevin Jason Matthew Gary Timothy Jose Larry
Jeffrey Frank Scott Eric Stephen Andrew Raymond Gregory Joshua Jerry Dennis Walter Patrick Peter
Harold Douglas Henry Carl Arthur Ryan Roger Joe Juan Jack Albert Jonathan Justin Terry Gerald Keith
Samuel Willie Ralph Lawrence Nicholas Roy Benjamin Bruce Brandon Adam Harry Fred Wayne Billy Steve
Louis Jeremy Aaron Randy Howard Eugene Carlos Russell Bobby Victor Martin Ernest Phillip Todd Jesse
Craig Alan Shawn Clarence Sean Philip Chris Johnny Earl Jimmy Antonio Bryan Tony Luis Mike Stanley
Leonard Nathan Dale Manuel Rodney Curtis Norman Allen Marvin Vincent Glenn Travis Jeff Chad Jacob
Lee Melvin Alfred Kyle Francis Bradley Jesus Herbert Frederick Ray Joel Edwin Don Eddie Ricky Troy
Randall Barry Alexander Bernard Mario Leroy Francisco Marcus Micheal Theodore Clifford Miguel Oscar
Jay Jim Tom Calvin Alex Jon Ronnie Bill Lloyd Tommy Leon Derek Warren Darrell Jerome Floyd Leo Alvin
Tim Wesley Gordon Dean Greg Jorge Dustin Pedro Derrick Dan Lewis Zachary Corey Herman Maurice Vernon
Roberto Clyde Glen Hector Shane Ricardo Sam Rick Lester Brent Ramon Charlie Tyler Gilbert Gene Ethan
Logan Noah Mason Liam Caleb Dylan Hunter Cameron Evan Luke Austin Connor Chase Ian Owen Elijah Mary
Patricia Linda Barbara Elizabeth Jennifer Maria Susan Margaret Dorothy Lisa Nancy Karen Betty Helen
Sandra Donna Carol Ruth Sharon Michelle Laura Sarah Kimberly Deborah Jessica Shirley Cynthia Angela
Melissa Brenda Amy Anna Rebecca Virginia Kathleen Pamela Martha Debra Amanda Stephanie Carolyn
Christine Marie Janet Catherine Frances Ann Joyce Diane Alice Julie Heather Teresa Doris Gloria
Evelyn Jean Cheryl Mildred Katherine Joan Ashley Judith Rose Janice Kelly Nicole Judy Christina
Kathy Theresa Beverly Denise Tammy Irene Jane Lori Rachel Marilyn Andrea Kathryn Louise Sara Anne
Jacqueline Wanda Bonnie Julia Ruby Lois Tina Phyllis Norma Paula Diana Annie Lillian Emily Robin
Peggy Crystal Gladys Rita Dawn Connie Florence Tracy Edna Tiffany Carmen Rosa Cindy Grace Wendy
Victoria Edith Kim Sherry Sylvia Josephine Thelma Shannon Sheila Ethel Ellen Elaine Marjorie Carrie
Charlotte Monica Esther Pauline Emma Juanita Anita Rhonda Hazel Amber Eva Debbie April Leslie Clara
Lucille Jamie Joanne Eleanor Valerie Danielle Megan Alicia Suzanne Michele Gail Bertha Darlene
Veronica Jill Erin Geraldine Lauren Cathy Joann Lorraine Lynn Sally Regina Erica Beatrice Dolores
Bernice Audrey Yvonne Annette June Samantha Marion Dana Stacy Ana Renee Ida Vivian Roberta Holly
Brittany Melanie Loretta Yolanda Jeanette Laurie Katie Kristen Vanessa Alma Sue Elsie Beth Jeanne
Vicki Carla Tara Rosemary Eileen Terri Gertrude Lucy Tonya Ella Stacey Wilma Gina Kristin Jessie
Natalie Agnes Vera Charlene Bessie Delores Melinda Pearl Arlene Maureen Colleen Allison Tamara Joy
Georgia Constance Lillie Claudia Jackie Marcia Tanya Nellie Minnie Marlene Heidi Glenda Lydia Viola
Courtney Marian Stella Caroline Dora Jo Vickie Mattie Hope Olivia Sophia Isabella Mia Abigail
Madison Chloe Hannah Zoe Faith Siobhan Aoife Niamh Fiona Will Max Hugo Otto Hans Klaus Jürgen Giulia
Mohammed Muhammad Mohamed Ahmed Ali Hassan Hussein Omar Ibrahim Yusuf Khalid Fatima Aisha Khadija
Maryam Zainab Leila Layla Amina Noor Raj Ravi Amit Sanjay Rahul Vijay Anil Suresh Priya Sunita Deepa
Lakshmi Ivan Dmitri Sergei Vladimir Alexei Boris Nikolai Olga Natalia Svetlana Tatiana Irina Wei
Ming Jing Ying Yan Hui Xin Yu Hiroshi Kenji Yuki Akira Minh Thanh Linh Anh Duc Hyun Min Chinedu
Emeka Ngozi Kwame Kofi Amara Guadalupe Javier Alejandro Diego Sofia Lucia Elena Rosario
"""
_SURNAMES = """
Smith Johnson Williams Jones Brown Davis Miller Wilson Moore Taylor Anderson Thomas Jackson Harris
Martin Thompson Garcia Martinez Robinson Clark Rodriguez Lewis Lee Walker Hall Allen Hernandez
Wright Lopez Scott Adams Baker Gonzalez Nelson Carter Mitchell Perez Roberts Turner Phillips
Campbell Parker Evans Edwards Collins Stewart Sanchez Morris Rogers Reed Morgan Murphy Bailey Rivera
Cooper Richardson Cox Howard Torres Peterson Ramirez Watson Brooks Kelly Sanders Bennett Barnes Ross
Henderson Coleman Jenkins Perry Powell Patterson Hughes Flores Washington Butler Simmons Foster
Gonzales Bryant Alexander Russell Griffin Diaz Hayes Myers Hamilton Graham Sullivan Wallace Woods
West Jordan Owens Reynolds Fisher Ellis Harrison Gibson McDonald Cruz Marshall Ortiz Gomez Murray
Freeman Wells Webb Simpson Stevens Tucker Porter Hunter Hicks Crawford Henry Boyd Mason Morales
Kennedy Warren Dixon Ramos Reyes Burns Gordon Shaw Holmes Robertson Daniels Palmer Mills Nichols
Ferguson Stone Hawkins Dunn Perkins Hudson Spencer Gardner Stephens Payne Pierce Berry Matthews
Arnold Wagner Willis Watkins Olson Carroll Duncan Snyder Hart Cunningham Bradley Lane Andrews Ruiz
Harper Fox Riley Armstrong Carpenter Weaver Greene Lawrence Elliott Chavez Sims Austin Peters Kelley
Franklin Lawson Nguyen Patel Kim Chen Wang Zhang Singh Khan Ahmed Tran Pham Cohen Schmidt Mueller
Ivanov Petrov Kowalski Rossi Silva Santos Fernandez Gutierrez Okafor Mensah Tanaka Yamamoto Suzuki
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
Husband Son Daughter Brother Sister Family Disease Diseases Syndrome Sign Test Score Scale Index
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
Have Has Had Is Was Were Are Be Been Bard However Therefore Also Diet Nursery The This That These
Those There Then When Where What Which Who How Why If And Or But Not No Yes On In At By For From To
With Of As After Before During Since Until Upon Started Given Seen Noted
"""
GIVEN_EN = frozenset(_GIVEN.split())
SURNAMES_EN = frozenset(_SURNAMES.split())
NO_NAMES_EN = frozenset(_WORDS.split())
