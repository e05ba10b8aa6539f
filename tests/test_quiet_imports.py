"""Importing the packages opens no connection, starts no program and opens no pickle.

Except for one: torch asks ``ldconfig -p`` where the system's libraries are when it is imported; it is let in first.
"""

import subprocess
import sys

LOUD = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.startfile")
LOUD += ("pty.", "urllib.", "http.", "ftplib.", "smtplib.", "pickle.find_class", "webbrowser.")
CODE = f"""
import sys, torch

seen = []
sys.addaudithook(lambda event, arguments: event.startswith({LOUD!r}) and seen.append(f"{{event}} {{arguments}}"[:200]))
import osdtw_models.cli, osdtw_training.cli, osdtw_export.cli, osdtw_export.predict_cli, osdtw_export.runtime

print("\\n".join(seen))
import socket

socket.socket().close()
assert seen, "the hook sees nothing"
"""


def test_importing_all_three_packages_is_quiet():
    found = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert not found.stdout.strip()
