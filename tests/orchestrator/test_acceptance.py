"""What becomes of drafts: rates that come out, and draws that depend on nothing but their arguments."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.requests.request import Request
from orchestrator.schedulers.acceptance import DrawnAcceptance, RecordedAcceptance

MANY = 4000


def request(number: int) -> Request:
    return Request(number, 0, 10, 10)


def test_rates_come_out() -> None:
    rates = (0.8, 0.55, 0.3)
    drawn = DrawnAcceptance(3, rates)
    counts = [drawn.accepted(request(number % 7), number, 3) for number in range(MANY)]
    for place, rate in enumerate(rates):
        share = sum(count > place for count in counts) / MANY
        assert abs(share - rate) < 0.03
    assert drawn.accepted(request(0), 0, 0) == 0


def test_searches_find_so_often() -> None:
    drawn = DrawnAcceptance(3, (), found=0.25)
    found = [drawn.proposed(request(0), number, 4) for number in range(MANY)]
    assert set(found) == {0, 4}
    assert abs(found.count(4) / MANY - 0.25) < 0.03


@given(st.integers(0, 9), st.integers(0, 99), st.integers(0, 999), st.integers(1, 4))
def test_a_draw_is_a_function_of_seed_request_and_place(seed: int, number: int, place: int, drafts: int) -> None:
    drawn = DrawnAcceptance(seed, (0.7, 0.5, 0.3, 0.1))
    first = drawn.accepted(request(number), place, drafts)
    for other in range(3):
        drawn.accepted(request(other), place, drafts)
    assert DrawnAcceptance(seed, (0.7, 0.5, 0.3, 0.1)).accepted(request(number), place, drafts) == first
    assert first == min(drafts, drawn.accepted(request(number), place, 4)), "fewer drafts are the first of more"


def test_draws_differ_by_each_argument() -> None:
    rates = tuple(1 - place / 50 for place in range(1, 50))
    draws = [
        DrawnAcceptance(0, rates).accepted(request(1), 2, 49),
        DrawnAcceptance(1, rates).accepted(request(1), 2, 49),
        DrawnAcceptance(0, rates).accepted(request(2), 2, 49),
        DrawnAcceptance(0, rates).accepted(request(1), 3, 49),
    ]
    assert len(set(draws)) > 2


def test_what_was_recorded_comes_again() -> None:
    recorded = RecordedAcceptance({1: [0, 3, 1]}, {1: [2, 9]})
    assert [recorded.accepted(request(1), place, 2) for place in range(4)] == [0, 2, 1, 0]
    assert [recorded.proposed(request(1), place, 4) for place in range(3)] == [2, 4, 2]
    assert (recorded.accepted(request(2), 0, 2), recorded.proposed(request(2), 0, 2)) == (0, 2)
