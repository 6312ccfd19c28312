#!/usr/bin/python3
"""Writes a Catch test case for every dialogue: cases.py FOLDER OUTPUT."""
import glob
import os
import sys

folder, output = sys.argv[1:]
text = '#include "dialogue/runner.hpp"\n#include "support/catch.hpp"\n'
for path in sorted(glob.glob(folder + "/**/*.smtp", recursive=True)):
    text += f'TEST_CASE("{os.path.relpath(path, folder)}") {{ greymx::test::run_dialogue("{path}"); }}\n'
if not os.path.exists(output) or open(output).read() != text:
    with open(output, "w") as file:
        file.write(text)
