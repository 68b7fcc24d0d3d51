# The compiled twin of infertrace.recording.stream.Stream.


@cython.final
@cython.internal
@cython.auto_pickle(False)
cdef class Stream:
    cdef object iterator
    cdef Span request

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.iterator)
        if self.request.ended:
            self.request.token()
        else:
            add_token(<PyObject*>self.request)
        return chunk

    def __getattr__(self, name):
        found = getattr(self.iterator, name)
        return streams.timed(found, self.request.token) if name in ("send", "throw") else found


cdef object stream_of(Span request, object iterable):
    cdef Stream stream
    if streams.is_async(iterable):
        return streams.AsyncStream(type(iterable).__aiter__(iterable), request.token)
    stream = Stream.__new__(Stream)
    stream.iterator = iter(iterable)
    stream.request = request
    return stream
