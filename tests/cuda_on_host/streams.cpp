#include "tests/cuda_on_host/streams.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <deque>
#include <memory>
#include <set>
#include <vector>

struct Queue {
    std::deque<std::function<void()>> waiting;
    uint64_t issued, done;
    bool late;
};
/* Queues outlive their streams: events refer to them. */
struct CUstream_st {
    std::shared_ptr<Queue> queue;
};
struct CUevent_st {
    std::shared_ptr<Queue> queue; /* empty: never recorded */
    uint64_t number;              /* happened when that many operations are done */
};

static std::set<cudaStream_t> streams;
static bool any_stream_yet;

std::recursive_mutex &host_runtime_mutex() {
    static std::recursive_mutex *mutex = new std::recursive_mutex; /* still there when other threads outlive main */
    return *mutex;
}

typedef std::lock_guard<std::recursive_mutex> Lock;

/* ---- faults ---- */

cudaError_t host_device_call() {
    static long long calls, fault_call = -1;
    Lock lock(host_runtime_mutex());
    if (fault_call < 0) {
        const char *text = getenv("CUDA_ON_HOST_FAULT"), *own = getenv("OMPI_COMM_WORLD_RANK");
        long long rank = 0, call = 0;
        const bool mine = text && sscanf(text, "%lld %lld", &rank, &call) == 2 && rank == (own ? atoll(own) : 0);
        fault_call = mine ? call : 0;
    }
    ++calls;
    if (fault_call == 0 || calls < fault_call) return cudaSuccess;
    if (calls == fault_call) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        fprintf(stderr, "fault at %lld ms\n", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    }
    return cudaErrorECCUncorrectable;
}

/* ---- streams ---- */

static bool is_late(bool first) {
    const char *mode = getenv("CUDA_ON_HOST_STREAMS");
    if (!mode) return false;
    return strcmp(mode, "all-late") == 0 || strcmp(mode, first ? "work-late" : "copies-late") == 0;
}

static void advance(Queue &queue, uint64_t number) {
    while (queue.done < number && !queue.waiting.empty()) {
        std::function<void()> operation = std::move(queue.waiting.front());
        queue.waiting.pop_front();
        operation();
        ++queue.done;
    }
}

static void issue(Queue &queue, std::function<void()> operation) {
    queue.waiting.push_back(std::move(operation));
    ++queue.issued;
    if (!queue.late) advance(queue, queue.issued);
}

void host_stream_issue(cudaStream_t stream, std::function<void()> operation) {
    Lock lock(host_runtime_mutex());
    if (stream)
        issue(*stream->queue, std::move(operation));
    else /* the default stream waits for all others */
        host_streams_finish(), operation();
}

void host_streams_finish() {
    Lock lock(host_runtime_mutex());
    for (cudaStream_t stream : streams) advance(*stream->queue, stream->queue->issued);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    *stream = new CUstream_st;
    (*stream)->queue = std::make_shared<Queue>();
    (*stream)->queue->late = is_late(!any_stream_yet);
    any_stream_yet = true;
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    advance(*stream->queue, stream->queue->issued);
    return host_launch_error();
}

/* A stream that nobody forces would never end: asking lets it. */
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    Lock lock(host_runtime_mutex());
    advance(*stream->queue, stream->queue->issued);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    if (cudaError_t lost = host_device_call()) return lost;
    *event = new CUevent_st();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    Lock lock(host_runtime_mutex());
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    event->queue = stream->queue;
    event->number = stream->queue->issued;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    if (event->queue) advance(*event->queue, event->number);
    return host_launch_error();
}

/* What the event stands for is decided now, not when the stream comes to wait. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    if (std::shared_ptr<Queue> other = event->queue) {
        const uint64_t number = event->number;
        issue(*stream->queue, [other, number] { advance(*other, number); });
    }
    return cudaSuccess;
}

/* ---- copies ---- */

/* Memory that is not page-locked: its bytes are taken before the call returns, and received before it returns. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    if (kind == cudaMemcpyHostToDevice && !host_memory_is_pinned(from)) {
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        host_stream_issue(stream, [to, staged] {
            HostMemoryAccess access;
            memcpy(to, staged->data(), staged->size());
        });
        return cudaSuccess;
    }
    host_stream_issue(stream, [to, from, bytes] {
        HostMemoryAccess access;
        memmove(to, from, bytes);
    });
    if (kind == cudaMemcpyDeviceToHost && !host_memory_is_pinned(to)) return cudaStreamSynchronize(stream);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    host_stream_issue(stream, [memory, value, bytes] {
        HostMemoryAccess access;
        memset(memory, value, bytes);
    });
    return cudaSuccess;
}
