# What a request of a model server and a step of its engine have, and other spans do not.


# A span has one only once it is needed: then what other spans cost stays as it is.
@cython.final
@cython.internal
@cython.no_gc
@cython.freelist(64)
@cython.auto_pickle(False)
cdef class Serving:
    # generated: apart_members
    cdef float scheduled_after_ms, max_inter_token_latency_ms, kv_cache_usage
    cdef int64_t step_index, first_step, last_step
    cdef int32_t preemption_count, step_count, prefill_tokens, decode_tokens
    cdef str engine, membership

    cdef inline Py_ssize_t text_bytes(self) except -1:
        cdef Py_ssize_t size = 0
        if self.engine is not None:
            size += utf8_size(self.engine)
        if self.membership is not None:
            size += utf8_size(self.membership)
        return size
    # end of what is generated
    cdef infertrace_token_times times  # of a request
    # Of a step that has not ended: who is in it.
    cdef tuple prefill, decode

    def __dealloc__(self):
        infertrace_forget_intervals(&self.times.intervals)

    cdef Py_ssize_t bound(self) except -1:
        """Upper bound on the encoding of what is here."""
        return (
            APART_BYTES + self.text_bytes() + infertrace_intervals_room(&self.times.intervals)
        )


cdef int keep_intervals(Serving serving, list given) except -1:
    """Take over a histogram: the bucket of the first count, and the counts."""
    cdef infertrace_intervals* all = &serving.times.intervals
    cdef int32_t offset = given[0], last = offset + <int32_t>len(given) - 2
    cdef Py_ssize_t place
    infertrace_forget_intervals(all)
    for place in range(1, len(given)):
        if infertrace_count_in(all, offset + <int32_t>place - 1, given[place]) < 0:
            raise MemoryError
    all.first, all.last = offset, last
    return 0
