"""Sizes that passes are padded to."""

from hypothesis import given
from hypothesis import strategies as st

from rankloom_engine.buckets import FINEST, STEPS, bucket, buckets

SIZES = st.integers(1, 1 << 20)


@given(SIZES)
def test_a_bucket_holds_its_size_and_little_more(size: int) -> None:
    assert size <= bucket(size) < size + max(FINEST, size / STEPS)


@given(SIZES)
def test_the_bucket_of_a_bucket_is_itself(size: int) -> None:
    assert bucket(bucket(size)) == bucket(size)


@given(SIZES, SIZES)
def test_larger_sizes_have_no_smaller_buckets(one: int, other: int) -> None:
    assert bucket(min(one, other)) <= bucket(max(one, other))


@given(st.integers(1, 5000))
def test_buckets_lists_the_bucket_of_every_size(largest: int) -> None:
    assert list(buckets(largest)) == sorted({bucket(size) for size in range(1, largest + 1)})


def test_a_few_tokens_are_not_padded_to_many() -> None:
    assert [bucket(size) for size in (1, 2, 3, 5, 9, 17)] == [1, 2, 4, 8, 16, 32]


def test_few_buckets_cover_all_sizes_of_a_micro_batch() -> None:
    assert len(list(buckets(2048))) == 64 + 4
