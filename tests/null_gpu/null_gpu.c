/* A CUDA runtime with pretended GPUs, for LD_PRELOAD: memory is host memory and begins as zeros, copies are real, kernels do nothing.
   NULL_GPU_COUNT: number of GPUs (1). NULL_GPU_CAPABILITY: 75, 80, 90 ... (90). NULL_GPU_MB: memory of all together (any). An empty CUDA_VISIBLE_DEVICES hides them all.
   What torch imports beyond these functions answers 0, which is success: see build.py. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static __thread int current = 0;

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

static int count(void) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    return visible && !*visible ? 0 : setting("NULL_GPU_COUNT", 1);
}

/* Devices */

cudaError_t cudaGetDeviceCount(int *n) { *n = count(); return *n ? cudaSuccess : cudaErrorNoDevice; }
cudaError_t cudaGetDevice(int *device) { *device = current; return cudaSuccess; }

cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= count()) return cudaErrorInvalidDevice;
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    int capability = setting("NULL_GPU_CAPABILITY", 90);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "null GPU %d", device);
    p->major = capability / 10, p->minor = capability % 10;
    p->pciBusID = device + 1;
    p->totalGlobalMem = 80ul << 30;
    p->multiProcessorCount = 132;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->sharedMemPerBlock = 48 << 10, p->sharedMemPerBlockOptin = 227 << 10, p->sharedMemPerMultiprocessor = 228 << 10;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->textureAlignment = 512;
    p->l2CacheSize = 50 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr what, int device) {
    int capability = setting("NULL_GPU_CAPABILITY", 90);
    *value = what == cudaDevAttrComputeCapabilityMajor ? capability / 10 : what == cudaDevAttrComputeCapabilityMinor ? capability % 10 : 1024;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int n, int device) { snprintf(text, n, "0000:%02x:00.0", device + 1); return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = 13020; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13020; return cudaSuccess; }
const char *cudaGetErrorName(cudaError_t error) { static __thread char text[80]; snprintf(text, 80, "error %d of the null GPU", error); return text; }
const char *cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

/* Memory: fresh pages of the kernel's are zero, and free of cost until they are touched (cuBLAS's workspaces never are) */

static size_t used = 0;

cudaError_t cudaMalloc(void **p, size_t n) {
    size_t all = n + 4096, most = setting("NULL_GPU_MB", 0);
    if (__sync_add_and_fetch(&used, all) > most << 20 && most) {
        __sync_sub_and_fetch(&used, all);
        return cudaErrorMemoryAllocation;
    }
    char *page = mmap(0, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (page == MAP_FAILED) return cudaErrorMemoryAllocation;
    *(size_t *)page = all;
    *p = page + 4096;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
    if (!p) return cudaSuccess;
    size_t *page = (size_t *)((char *)p - 4096);
    __sync_sub_and_fetch(&used, *page);
    munmap(page, *page);
    return cudaSuccess;
}

cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t stream) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t stream) { return cudaFree(p); }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags) { return cudaMalloc(p, n); }
cudaError_t cudaMallocHost(void **p, size_t n) { return cudaMalloc(p, n); }
cudaError_t cudaFreeHost(void *p) { return cudaFree(p); }
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) { *left = 79ul << 30; *total = 80ul << 30; return cudaSuccess; }

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind) { memcpy(to, from, n); return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t stream) { return cudaMemcpy(to, from, n, kind); }
cudaError_t cudaMemcpyPeerAsync(void *to, int a, const void *from, int b, size_t n, cudaStream_t stream) { memcpy(to, from, n); return cudaSuccess; }
cudaError_t cudaMemset(void *to, int value, size_t n) { memset(to, value, n); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t stream) { return cudaMemset(to, value, n); }

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *about, const void *p) {
    memset(about, 0, sizeof *about);
    about->type = cudaMemoryTypeUnregistered;
    about->device = current;
    return cudaSuccess;
}

/* Streams, events, launches */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    static long last = 64;
    *stream = (cudaStream_t)__sync_add_and_fetch(&last, 64);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return cudaStreamCreateWithPriority((cudaStream_t *)event, flags, 0); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 1; return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) { *status = cudaStreamCaptureStatusNone; return cudaSuccess; }

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *kernel, int threads, size_t shared) { *n = 8; return cudaSuccess; }

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *about, const void *kernel) {
    memset(about, 0, sizeof *about);
    about->maxThreadsPerBlock = 1024;
    about->binaryVersion = about->ptxVersion = setting("NULL_GPU_CAPABILITY", 90);
    return cudaSuccess;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) { return 0; }

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = *block = (dim3){1, 1, 1};
    *shared = 0;
    *(void **)stream = 0;
    return cudaSuccess;
}

void **__cudaRegisterFatBinary(void *binary) { static void *handle[4]; return handle; }

static void nothing(void) {}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
    *function = (void *)nothing;
    if (result) *result = 0;
    return cudaSuccess;
}

int cublasCreate_v2(void **handle) { static int x; *handle = &x; return 0; }
