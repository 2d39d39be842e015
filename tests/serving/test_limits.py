"""Slots of the gateway."""

import pytest

from medray.serving.limits import InFlight
from medray.serving.schema.base import ApiError


def test_one_too_many_is_refused_until_a_slot_is_free():
    counter = InFlight(limit=2, retry_after_s=3)
    first, _ = counter.take(), counter.take()
    with pytest.raises(ApiError, match="2 requests are in flight") as refused:
        counter.take()
    assert (refused.value.status, refused.value.retry_after_s) == (429, 3)
    first.free()
    first.free()  # a stream may be ended from two sides
    assert counter.count == 1
    counter.take()
