"""Hostile networks and data: used, or refused in one sentence. The study tries more, under limits of memory."""

from contextlib import suppress
from random import Random

import pytest

import attacks_on_data
import attacks_on_networks
from sandbox import attempt

TRIES = 25


@pytest.mark.filterwarnings("ignore")  # what libraries say before their errors
@pytest.mark.parametrize(
    "attack", [*attacks_on_networks.ATTACKS, *attacks_on_data.ATTACKS], ids=lambda attack: attack.fault
)
def test_every_try_is_used_or_refused_in_one_sentence(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = attack.begin(tmp_path)
    found = [attempt(attack.craft(Random(f"test/{i}"), tmp_path, state)) for i in range(TRIES)]
    assert set(found) <= {"accepted", "refused"}
    assert "refused" in found


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ValueError("This is wrong; do that."), "refused"),
        (FileNotFoundError("There is no such file."), "refused"),
        (ValueError(""), "no sentence: ValueError('')"),
        (ValueError("a\nb"), "no sentence: ValueError('a\\nb')"),
        (KeyError("name"), "traceback: KeyError('name')"),
        (RecursionError("deep"), "traceback: RecursionError('deep')"),
        (MemoryError("no"), "traceback: MemoryError('no')"),
    ],
)
def test_only_a_documented_error_of_one_sentence_is_a_refusal(error, verdict):
    def act():
        raise error

    assert attempt(act) == verdict


def test_memory_that_was_not_there_is_no_refusal_whatever_became_of_the_error():
    def act():
        try:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        except RuntimeError as error:
            raise ValueError("The file is odd.") from error

    assert attempt(act) == "memory: The file is odd."


def test_a_hang_is_found_though_it_catches_every_exception():
    def act():
        while True:
            with suppress(Exception):
                sum(range(1000))

    assert attempt(act, seconds=1) == "hang of more than 1 s"
