"""What a process tells the others of its rooms: bounded, and JSON whatever the names are."""

from __future__ import annotations

import json

from sidecar.services.rooms import MAX_ROOMS, MAX_USERS, told


def test_all_of_a_few():
    here = {"r": {"ada": 2, "": 1}, 'say "hi"\\': {"Zoë 🚀": 1}, "s": {}}
    assert json.loads(told(here)) == here


def test_of_very_many_rooms_some():
    assert len(json.loads(told({str(number): {"a": 1} for number in range(MAX_ROOMS + 5)}))) == MAX_ROOMS


def test_of_very_many_users_some():
    crowd = {str(number): 1 for number in range(MAX_USERS - 1)}
    said = json.loads(told({"a": crowd, "b": {"x": 1, "y": 1}, "c": {"z": 1}}))
    assert sum(len(users) for users in said.values()) <= MAX_USERS
    assert said["b"] == {"x": 1}
