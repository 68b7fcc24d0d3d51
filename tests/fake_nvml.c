/* A libnvidia-ml.so.1 for machines without a GPU; the real pynvml loads it.
 *
 * FAKE_NVML says what it plays: healthy (also when unset), no_permission, mig, lost, slow,
 * no_device, mismatch, hanging (its readings, while the file FAKE_NVML_HANG is there).
 * FAKE_NVML_GPUS says how many GPUs there are (1), FAKE_NVML_MIG how many MIG instances the first
 * one has (0), FAKE_NVML_MODELS how many models they are of (1). To the file FAKE_NVML_CALLS goes a
 * line for each round of readings of the first GPU, the process that asked, and for each end of a use
 * of NVML, its process with a minus. Signatures and codes as nvml.h has them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    GPU_IS_LOST = 15,
    LIB_RM_VERSION_MISMATCH = 18,
    MAX_GPUS = 16,
    MAX_INSTANCES = 7,
};

/* What a handle points to: a GPU, or an instance of the first one. */
typedef struct {
    int gpu, instance; /* -1: none */
} target;

static target gpus[MAX_GPUS], instances[MAX_INSTANCES];

static int number_of(const char *variable, int otherwise) {
    const char *set = getenv(variable);
    return set ? atoi(set) : otherwise;
}

static int plays(const char *role) {
    const char *set = getenv("FAKE_NVML");
    if (set && !strcmp(set, "slow")) sleep(1);
    return set && !strcmp(set, role);
}

static int usual(void) {
    if (plays("lost")) return GPU_IS_LOST;
    return SUCCESS;
}

static void note(int number) {
    const char *path = getenv("FAKE_NVML_CALLS");
    char line[32];
    int file;
    if (!path) return;
    file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0) return;
    if (write(file, line, (size_t)snprintf(line, sizeof line, "%d\n", number)) < 0) return;
    close(file);
}

static void hang(void) {
    const char *path = getenv("FAKE_NVML_HANG");
    if (!plays("hanging") || !path) return;
    while (!access(path, F_OK))
        usleep(10000);
}

int nvmlInit_v2(void) { return plays("mismatch") ? LIB_RM_VERSION_MISMATCH : SUCCESS; }
int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return nvmlInit_v2();
}
int nvmlShutdown(void) {
    note(-(int)getpid());
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *found) {
    *found = plays("no_device") ? 0 : (unsigned)number_of("FAKE_NVML_GPUS", 1);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (plays("no_device") || index >= (unsigned)number_of("FAKE_NVML_GPUS", 1)) return NOT_FOUND;
    gpus[index].gpu = (int)index;
    gpus[index].instance = -1;
    *device = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *found) {
    *found = ((target *)device)->gpu ? 0 : MAX_INSTANCES;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **found) {
    if (((target *)device)->gpu || index >= (unsigned)number_of("FAKE_NVML_MIG", 0))
        return NOT_FOUND;
    instances[index].instance = (int)index;
    *found = &instances[index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *device, unsigned *id) {
    *id = 7 + (unsigned)((target *)device)->instance;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(void *device, unsigned *id) {
    (void)device;
    *id = 0;
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    const target *of = device;
    int model = of->gpu % number_of("FAKE_NVML_MODELS", 1);
    snprintf(name, length, "Fake %d%s", model, of->instance < 0 ? "" : " MIG 1g.10gb");
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    const target *of = device;
    if (of->instance >= 0)
        snprintf(uuid, length, "MIG-%d0000000-fake", of->instance);
    else if (of->gpu)
        snprintf(uuid, length, "GPU-%d0000000-fake", of->gpu);
    else
        strncpy(uuid, "GPU-5f0c7a52-fake", length);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
    const target *of = device;
    if (!of->gpu && of->instance < 0) note((int)getpid());
    hang();
    if (plays("mig") || of->instance >= 0) return NOT_SUPPORTED;
    if (plays("no_permission")) return NO_PERMISSION;
    rates[0] = (unsigned)of->gpu; /* the first is idle: a value, not the lack of one */
    rates[1] = 7;
    return usual();
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
    const target *of = device;
    if (plays("no_permission")) return NO_PERMISSION;
    memory[0] = of->instance < 0 ? 80ULL << 30 : 10ULL << 30; /* total, free, used */
    memory[2] = of->instance < 0 ? 30ULL << 30 : (1ULL + (unsigned)of->instance) << 30;
    memory[1] = memory[0] - memory[2];
    return usual();
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    const target *of = device;
    if (plays("mig") || plays("no_permission") || of->instance >= 0) return NOT_SUPPORTED;
    *milliwatts = 350500;
    return usual();
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    const target *of = device;
    (void)sensor;
    if (of->instance >= 0) return NOT_SUPPORTED;
    if (plays("no_permission")) return NO_PERMISSION;
    *celsius = 61;
    return usual();
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "as the fake driver plays it";
}
