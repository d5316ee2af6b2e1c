"""Arrays that fit: a cluster limits an array's length and the jobs that a user may queue."""

from __future__ import annotations


def array_chunks(count: int, max_array_size: int | None, max_submit: int | None = None) -> list[str]:
    """How to queue `count` like jobs: the index ranges of as many arrays as it takes.

    Args:
        count: jobs wanted, ≥ 0.
        max_array_size: SLURM's MaxArraySize (indices must be below it); below 2 there are no arrays;
            None: no limit.
        max_submit: jobs that may be queued; what is beyond is left out; None: no limit.

    Returns:
        Ranges such as "0-999"; every array's indices begin at 0.

    Example:
        >>> array_chunks(25, 11)
        ['0-9', '0-9', '0-4']
    """
    wanted = count if max_submit is None else max(0, min(count, max_submit))
    # MaxArraySize=1001 permits the indices 0 to 1000; a size of 0 or 1 switches arrays off
    longest = wanted if max_array_size is None else max(1, max_array_size - 1)
    chunks = []
    while wanted > 0:
        size = min(wanted, longest)
        chunks.append(f"0-{size - 1}" if size > 1 else "0")
        wanted -= size
    return chunks
