"""Says whether every case of a report of the Autobahn suite is OK: python3 verdict.py INDEX.json"""

import collections
import json
import sys

# What the suite itself gives no verdict on.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

# Fewer cases mean that the suite did not run, not that all is well.
LEAST = 200

with open(sys.argv[1], encoding="utf-8") as file:
    report = json.load(file)

wrong = []
for agent, cases in sorted(report.items()):
    verdicts = collections.Counter(case["behavior"] for case in cases.values())
    print(f"  {agent}: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    if len(cases) < LEAST:
        wrong.append(f"{agent}: only {len(cases)} cases ran")
    for name, case in cases.items():
        behavior, close = case["behavior"], case["behaviorClose"]
        fine = (behavior, close) == ("OK", "OK") or (name in INFORMATIONAL and behavior == "INFORMATIONAL")
        if not fine:
            wrong.append(f"{agent}: case {name} is {behavior}, its close {close}")
if len(report) != 2:
    wrong.append(f"{len(report)} agents instead of 2")
if wrong:
    sys.exit("\n".join(wrong))
