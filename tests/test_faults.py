"""The suite of faults as a whole: how many it injects. The faults themselves are in the files beside it."""

import faults


def test_more_than_a_hundred_faults_are_injected_and_twenty_kills():
    assert sum(faults.PLANNED.values()) >= 100
    assert faults.PLANNED["kill -9"] >= 20
    assert all(count >= 3 for count in faults.PLANNED.values())


def test_no_fault_is_planned_twice():
    lists = [
        faults.KILLED_AT,
        faults.HARMS,
        faults.CHECKPOINT_FILES,
        faults.BEST_FILES,
        faults.MODEL_FILES,
        faults.NOTES,
    ]
    assert all(len(set(each)) == len(each) for each in lists)


def test_a_fault_that_was_injected_is_one_that_was_planned():
    """What ran until here; a kind of its own would be missing from the table in docs/reliability.md."""
    assert faults.INJECTED.keys() <= faults.PLANNED.keys()
