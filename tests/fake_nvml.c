/* A libnvidia-ml.so.1 for machines without a GPU; the real pynvml loads it.
 *
 * FAKE_NVML says what it plays: healthy (also when unset), no_permission, mig, lost, slow,
 * no_device, mismatch. Signatures and codes as nvml.h has them.
 */
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
};

static int handle_target;

static int plays(const char *role) {
    const char *set = getenv("FAKE_NVML");
    if (set && !strcmp(set, "slow")) sleep(1);
    return set && !strcmp(set, role);
}

static int usual(void) {
    if (plays("lost")) return GPU_IS_LOST;
    return SUCCESS;
}

int nvmlInit_v2(void) { return plays("mismatch") ? LIB_RM_VERSION_MISMATCH : SUCCESS; }
int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return nvmlInit_v2();
}
int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (plays("no_device") || index > 0) return NOT_FOUND;
    *device = &handle_target;
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    (void)device;
    strncpy(uuid, "GPU-5f0c7a52-fake", length);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
    (void)device;
    if (plays("mig")) return NOT_SUPPORTED;
    if (plays("no_permission")) return NO_PERMISSION;
    rates[0] = 0; /* idle: a value, not the lack of one */
    rates[1] = 7;
    return usual();
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
    (void)device;
    if (plays("no_permission")) return NO_PERMISSION;
    memory[0] = 80ULL << 30; /* total, free, used */
    memory[1] = 50ULL << 30;
    memory[2] = 30ULL << 30;
    return usual();
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    (void)device;
    if (plays("mig") || plays("no_permission")) return NOT_SUPPORTED;
    *milliwatts = 350500;
    return usual();
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    (void)device;
    (void)sensor;
    if (plays("no_permission")) return NO_PERMISSION;
    *celsius = 61;
    return usual();
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "as the fake driver plays it";
}
