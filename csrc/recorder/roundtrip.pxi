# Sends a request to the sender process and reads its answer, without the GIL.

cdef enum:
    MAX_PARTS = 4
    ANSWER_ROOM = 8192


def roundtrip(int descriptor, tuple parts, size_t head, size_t size_at, double timeout_s):
    """Write the parts (four bytes objects at most), read an answer; raises OSError.

    The answer is `head` bytes, and as many more as the 32-bit number at `size_at` says.
    """
    cdef iovec[MAX_PARTS] vectors
    cdef char[ANSWER_ROOM] answer
    cdef int count = 0
    cdef ptrdiff_t outcome
    cdef int64_t deadline = infertrace_monotonic_ns() + <int64_t>(timeout_s * 1e9)
    if len(parts) > MAX_PARTS or size_at + 4 > head or head > ANSWER_ROOM:
        raise ValueError("expected at most four parts, and a size within the head of the answer")
    for part in parts:
        if type(part) is not bytes:
            raise TypeError(f"expected bytes, got {part!r}")
        vectors[count].iov_base = PyBytes_AS_STRING(part)
        vectors[count].iov_len = PyBytes_GET_SIZE(part)
        count += 1
    with nogil:
        outcome = infertrace_roundtrip(
            descriptor, vectors, count, answer, ANSWER_ROOM, head, size_at, deadline
        )
    if outcome < 0:
        raise OSError(-outcome, os.strerror(-outcome))
    return answer[:outcome]
