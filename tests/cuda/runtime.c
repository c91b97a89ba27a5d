/* A stand-in for the CUDA runtime on a machine without a GPU, preloaded before PyTorch's own.
 *
 * Device memory is address space that is never touched by kernels; kernels, copies between devices and convolutions do
 * nothing. What PyTorch asks of the runtime is real: where memory is taken and given back, which pointers belong to the
 * device or are pinned, and how often it launches, copies and waits. What comes back from the device is zero, except
 * that integers of 4 or 8 bytes read alone, which are counts, take the value of `standin_set_count`.
 */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default")))
#define DEVICE_SPACE ((size_t)1 << 42) /* addresses of device memory, handed out once and never again */
#define HOST_SPACE ((size_t)1 << 38)   /* of pinned host memory */
#define GRAIN ((size_t)2 << 20)
#define REAL_COPY ((size_t)1 << 20)    /* larger ones are only counted, so that no page is touched */

/* The order of the names in standin.py. */
enum { LAUNCHES, WAITS, TO_DEVICE, TO_HOST, WITHIN, UNPINNED, COUNTERS };
static unsigned long counters[COUNTERS];
static int64_t count_read = 0;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef struct {
    char *base;
    size_t space, used, in_use;
    struct { char *start; size_t size; } blocks[1 << 16];
    int number;
} Arena;
static Arena device, host;

API unsigned long *standin_counters(void) { return counters; }
API void standin_set_count(int64_t value) { count_read = value; }

static size_t device_bytes(void) {
    const char *text = getenv("STANDIN_BYTES");
    return text ? strtoull(text, NULL, 10) : (size_t)80 << 30;
}

static int holds(const Arena *arena, const void *pointer) {
    const char *p = pointer;
    return arena->base && p >= arena->base && p < arena->base + arena->space;
}

static void *take(Arena *arena, size_t space, size_t size, size_t limit) {
    size = (size + GRAIN - 1) / GRAIN * GRAIN;
    char *start = NULL;
    pthread_mutex_lock(&lock);
    if (!arena->base) {
        void *base = mmap(NULL, space, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) { perror("stand-in: mmap"); abort(); }
        arena->base = base, arena->space = space;
    }
    if (arena->in_use + size <= limit) {
        if (arena->used + size > arena->space || arena->number == 1 << 16) { fprintf(stderr, "stand-in: no addresses left\n"); abort(); }
        start = arena->base + arena->used;
        arena->used += size, arena->in_use += size;
        arena->blocks[arena->number].start = start, arena->blocks[arena->number++].size = size;
    }
    pthread_mutex_unlock(&lock);
    return start;
}

static void give_back(Arena *arena, void *pointer) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < arena->number; i++)
        if (arena->blocks[i].start == pointer) {
            madvise(pointer, arena->blocks[i].size, MADV_DONTNEED);
            arena->in_use -= arena->blocks[i].size;
            arena->blocks[i] = arena->blocks[--arena->number];
            break;
        }
    pthread_mutex_unlock(&lock);
}

static void copy(void *to, const void *from, size_t size) {
    if (holds(&device, to) && holds(&device, from)) {
        counters[WITHIN]++;
        if (size <= REAL_COPY) memmove(to, from, size);
    } else if (holds(&device, to)) {
        counters[TO_DEVICE]++;
        if (!holds(&host, from)) counters[UNPINNED]++;
        if (size <= REAL_COPY) memcpy(to, from, size);
    } else if (holds(&device, from)) {
        counters[TO_HOST]++;
        memset(to, 0, size);
        if (size == 4) *(int32_t *)to = (int32_t)count_read;
        if (size == 8) *(int64_t *)to = count_read;
    } else {
        memmove(to, from, size);
    }
}

/* ------------------------------------------------------------------------------------------------ devices */

static __thread int current = 0;
API cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return cudaSuccess; }
API cudaError_t cudaGetDevice(int *d) { *d = current; return cudaSuccess; }
API cudaError_t cudaSetDevice(int d) { current = d; return cudaSuccess; }
API cudaError_t cudaDriverGetVersion(int *v) { *v = CUDART_VERSION; return cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int *v) { *v = CUDART_VERSION; return cudaSuccess; }
API cudaError_t cudaGetLastError(void) { return cudaSuccess; }
API cudaError_t cudaPeekAtLastError(void) { return cudaSuccess; }
API cudaError_t cudaDeviceCanAccessPeer(int *yes, int a, int b) { *yes = 0; return cudaSuccess; }
API cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int d) { snprintf(text, size, "0000:00:00.0"); return cudaSuccess; }
API cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return cudaSuccess; }

static int attribute(enum cudaDeviceAttr which) { /* of a GPU of compute capability 9.0 */
    switch (which) {
    case cudaDevAttrComputeCapabilityMajor: return 9;
    case cudaDevAttrMultiProcessorCount: return 132;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 48 << 10;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 227 << 10;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: return 65535;
    default: return 0;
    }
}
API cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int d) { *value = attribute(which); return cudaSuccess; }
API cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "stand-in");
    p->totalGlobalMem = device_bytes();
    p->major = 9, p->multiProcessorCount = 132, p->warpSize = 32;
    p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048, p->maxBlocksPerMultiProcessor = 32;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->sharedMemPerBlock = 48 << 10, p->sharedMemPerBlockOptin = 227 << 10, p->sharedMemPerMultiprocessor = 228 << 10;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->l2CacheSize = 50 << 20, p->textureAlignment = 512, p->unifiedAddressing = 1;
    return cudaSuccess;
}

/* ------------------------------------------------------------------------------------------------- memory */

API cudaError_t cudaMalloc(void **p, size_t size) {
    *p = take(&device, DEVICE_SPACE, size ? size : 1, device_bytes());
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
API cudaError_t cudaFree(void *p) { if (p) give_back(&device, p); return cudaSuccess; }
API cudaError_t cudaMallocAsync(void **p, size_t size, cudaStream_t s) { return cudaMalloc(p, size); }
API cudaError_t cudaFreeAsync(void *p, cudaStream_t s) { return cudaFree(p); }
API cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    *total = device_bytes(), *available = *total - device.in_use;
    return cudaSuccess;
}
API cudaError_t cudaHostAlloc(void **p, size_t size, unsigned flags) {
    *p = take(&host, HOST_SPACE, size ? size : 1, HOST_SPACE);
    return cudaSuccess;
}
API cudaError_t cudaFreeHost(void *p) { if (p) give_back(&host, p); return cudaSuccess; }
API cudaError_t cudaHostRegister(void *p, size_t size, unsigned flags) { return cudaSuccess; }
API cudaError_t cudaHostUnregister(void *p) { return cudaSuccess; }
API cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->type = holds(&device, p) ? cudaMemoryTypeDevice : holds(&host, p) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    if (a->type != cudaMemoryTypeUnregistered) a->devicePointer = (void *)p;
    if (a->type == cudaMemoryTypeHost) a->hostPointer = (void *)p;
    return cudaSuccess;
}
API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind k, cudaStream_t s) { copy(to, from, size); return cudaSuccess; }
API cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind k) { counters[WAITS]++; copy(to, from, size); return cudaSuccess; }
API cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t size, size_t offset, enum cudaMemcpyKind k) { return cudaSuccess; }
API cudaError_t cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t s) { counters[LAUNCHES]++; if (size <= REAL_COPY) memset(p, value, size); return cudaSuccess; }
API cudaError_t cudaMemset(void *p, int value, size_t size) { return cudaMemsetAsync(p, value, size, 0); }

/* ------------------------------------------------------------------------------------- streams and events */

static cudaError_t handle(void **h) { *h = malloc(1); return cudaSuccess; }
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority) { return handle((void **)s); }
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) { return handle((void **)s); }
API cudaError_t cudaStreamDestroy(cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaStreamQuery(cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaStreamSynchronize(cudaStream_t s) { counters[WAITS]++; return cudaSuccess; }
API cudaError_t cudaDeviceSynchronize(void) { counters[WAITS]++; return cudaSuccess; }
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) { return cudaSuccess; }
API cudaError_t cudaStreamGetPriority(cudaStream_t s, int *priority) { *priority = 0; return cudaSuccess; }
API cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status) { *status = cudaStreamCaptureStatusNone; return cudaSuccess; }
API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *number) { *status = cudaStreamCaptureStatusNone; if (id) *id = 0; return cudaSuccess; }
API cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return cudaSuccess; }
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { return handle((void **)e); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) { return cudaSuccess; }
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned flags) { return cudaSuccess; }
API cudaError_t cudaEventQuery(cudaEvent_t e) { return cudaSuccess; }
API cudaError_t cudaEventSynchronize(cudaEvent_t e) { counters[WAITS]++; return cudaSuccess; }
API cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 1; return cudaSuccess; }

/* ------------------------------------------------------------------------------------------------ kernels */

static cudaError_t launch(void) { counters[LAUNCHES]++; return cudaSuccess; }
API cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) { return launch(); }
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *f, void **args) { return launch(); }
API cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) { return launch(); }
API cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t k, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) { return launch(); }
API cudaError_t __cudaGetKernel(cudaKernel_t *k, const void *f) { *k = (cudaKernel_t)f; return cudaSuccess; }
API cudaError_t cudaFuncSetAttribute(const void *f, enum cudaFuncAttribute which, int value) { return cudaSuccess; }
API cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024, a->ptxVersion = a->binaryVersion = 90, a->numRegs = 32;
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *f, int block, size_t shared) { *n = 2; return cudaSuccess; }
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int block, size_t shared, unsigned flags) { *n = 2; return cudaSuccess; }

static int nothing(void) { return 0; }
API cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *found) {
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_GLOBAL);
    void *known = driver ? dlsym(driver, name) : NULL;
    *f = known ? known : (void *)nothing;
    if (found) *found = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
