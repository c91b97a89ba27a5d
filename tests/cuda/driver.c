/* The few functions of the CUDA driver that PyTorch looks up by name; the others give `nothing` in runtime.c. */
#define API __attribute__((visibility("default")))
static int context;
API int cuInit(unsigned flags) { return 0; }
API int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
API int cuDeviceGetCount(int *number) { *number = 1; return 0; }
API int cuDeviceGet(int *d, int ordinal) { *d = ordinal; return 0; }
API int cuDeviceGetAttribute(int *value, int which, int d) { *value = 0; return 0; }
API int cuDevicePrimaryCtxGetState(int d, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
API int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &context; return 0; }
API int cuCtxGetCurrent(void **c) { *c = &context; return 0; }
API int cuCtxSetCurrent(void *c) { return 0; }
API int cuGetErrorString(int error, const char **text) { *text = "stand-in"; return 0; }

/* What libtorch links to, for kernels that it compiles itself; nobody may call it here. */
#define MISSING(name) API int name(void) { return 999; }
MISSING(cuFuncGetAttribute) MISSING(cuFuncSetAttribute) MISSING(cuFuncSetCacheConfig)
MISSING(cuLaunchCooperativeKernel) MISSING(cuLaunchKernel)
MISSING(cuLinkAddData_v2) MISSING(cuLinkComplete) MISSING(cuLinkCreate_v2)
MISSING(cuModuleGetFunction) MISSING(cuModuleLoad) MISSING(cuModuleLoadData) MISSING(cuModuleLoadDataEx) MISSING(cuModuleUnload)
MISSING(cuOccupancyMaxActiveBlocksPerMultiprocessor) MISSING(cuPointerGetAttribute) MISSING(cuTensorMapEncodeTiled)
