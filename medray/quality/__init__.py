"""Medical quality control: indicators as data, decomposition, verdicts, evidence, logic, report."""
